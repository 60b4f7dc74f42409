"""Which classes the embedded data set has, how often each occurs, and where every object stands."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aegl.data.shapes_draw import HUES, OUTLINES, TEXTURES
from aegl.errors import ConfigError

_RADIUS = (0.13, 0.24)  # of the side
_OBJECTS = (2, 6)  # per picture, both included
_MIN_DISTANCE = 0.85  # of the sum of two radii: circumscribed circles may touch, figures hardly overlap
_CANDIDATES = 24
_ORDERS_TRIED = 32
# The shares of the logarithmic range of counts at which the bands change: counts 800..1 give edges 5 and 40.
_BAND_SHARES = (math.log(5) / math.log(800), math.log(40) / math.log(800))


@dataclass(frozen=True)
class ShapeClass:
    """One class: a shape in a hue with a texture."""

    shape: str
    hue: str
    texture: str

    @property
    def name(self) -> str:
        """For instance ``red_striped_star``."""
        return f"{self.hue}_{self.texture}_{self.shape}"

    def is_kin(self, other: ShapeClass) -> bool:
        """Whether the other class has the same shape and differs in the hue or the texture only."""
        return self.shape == other.shape and (self.hue == other.hue) != (self.texture == other.texture)


@dataclass(frozen=True)
class Placement:
    """One object: class ``label`` in ``0..C-1``, centre and radius as shares of the side, angle in radians."""

    label: int
    x: float
    y: float
    radius: float
    angle: float


def shape_classes(count: int) -> list[ShapeClass]:
    """The first classes of a grid of shapes by hues and textures, spread over shapes so that every class has kin.

    Raises:
        ConfigError: when ``count`` is outside 4..100.
    """
    styles = list(itertools.product(HUES, TEXTURES))
    limit = len(OUTLINES) * len(styles)
    if not 4 <= count <= limit:
        raise ConfigError(f"shapes.classes={count}: must lie in 4..{limit}")
    shapes = max(math.ceil(count / len(styles)), round(math.sqrt(count)))
    per_shape = math.ceil(count / shapes)
    grid = itertools.product(list(OUTLINES)[:shapes], styles[:per_shape])
    return [ShapeClass(shape, hue, texture) for shape, (hue, texture) in itertools.islice(grid, count)]


def long_tail_counts(classes: int, max_instances: int, imbalance: float) -> np.ndarray:
    """Falling counts ``n_i = max_instances * imbalance ** (-i / (C - 1))``, at least 1: ``[C]`` int64."""
    falling = max_instances * float(imbalance) ** (-np.arange(classes) / (classes - 1))
    return np.maximum(1, np.rint(falling)).astype(np.int64)


def band_edges(max_instances: int, imbalance: float) -> tuple[int, int]:
    """Largest image count of a rare and of a common class: (5, 40) for the default 800 instances and imbalance 800.

    Other sizes keep the share of classes in each band.
    """
    fewest = max_instances / imbalance
    rare, common = (max(1, round(fewest * imbalance**share)) for share in _BAND_SHARES)
    return rare, max(rare + 1, common)


def assign_counts(
    classes: Sequence[ShapeClass], counts: np.ndarray, edges: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Give every class one of the counts, at random but so that (nearly) every rare class has a frequent kin.

    A rare class beside a frequent look-alike is what makes a long tail hard; of some random orders the first with the
    most such pairs is taken.

    Returns:
        ``[C]`` int64, instances of each class.
    """
    kin = np.array([[a.is_kin(b) for b in classes] for a in classes])
    best, best_score = counts, -1
    for _ in range(_ORDERS_TRIED):
        drawn = rng.permutation(counts)
        rare, frequent = drawn <= edges[0], drawn > edges[1]
        score = int((kin[rare][:, frequent]).any(axis=1).sum())
        if score > best_score:
            best, best_score = drawn, score
    return best


def arrange(counts: np.ndarray, rng: np.random.Generator) -> list[list[Placement]]:
    """Place exactly ``counts[c]`` objects of every class ``c``, about four to a picture, with little overlap.

    The rarest classes come first, into random pictures; an object that finds no free place moves to a new picture at
    the end, so none is lost.

    Returns:
        The objects of every picture, in the order in which they are painted.
    """
    order = np.argsort(counts, kind="stable")
    labels = np.repeat(order, counts[order])
    pictures = _deal(labels, rng)
    scenes, homeless = [], []
    for picture in pictures:
        placed, left = _fill(picture, rng)
        scenes.append(placed)
        homeless += left
    while homeless:
        few, rest = homeless[: _OBJECTS[0]], homeless[_OBJECTS[0] :]
        placed, left = _fill(few, rng)  # the first object of an empty picture always finds a place
        scenes.append(placed)
        homeless = left + rest
    return scenes


def _deal(labels: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """Deal the objects, in order, to random places in pictures of two to six objects."""
    sizes: list[int] = []
    while sum(sizes) < len(labels):
        sizes.extend(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1, size=max(1, len(labels) // 8)).tolist())
    ends = np.cumsum(sizes)
    slots = np.repeat(np.arange(len(sizes)), sizes)[: len(labels)]
    pictures: list[list[int]] = [[] for _ in range(int(np.searchsorted(ends, len(labels))) + 1)]
    for label, picture in zip(labels.tolist(), rng.permutation(slots).tolist(), strict=True):
        pictures[picture].append(label)
    return pictures


def _fill(labels: Sequence[int], rng: np.random.Generator) -> tuple[list[Placement], list[int]]:
    """Place what finds room in one picture; return it and the labels that did not."""
    placed: list[Placement] = []
    circles = np.zeros((0, 3))
    left = []
    for label in labels:
        circle = _free_circle(circles, rng.uniform(*_RADIUS), rng)
        if circle is None:
            circle = _free_circle(circles, _RADIUS[0], rng)
        if circle is None:
            left.append(label)
            continue
        circles = np.concatenate([circles, circle[None]])
        x, y, radius = circle.tolist()
        placed.append(Placement(label, x, y, radius, float(rng.uniform(0, 2 * math.pi))))
    return placed, left


def _free_circle(circles: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray | None:
    """``[3]`` x, y, radius of a circle inside the picture and clear of the others, if one of some tries is."""
    centres = rng.uniform(radius, 1 - radius, size=(_CANDIDATES, 2))
    distance = np.linalg.norm(centres[:, None] - circles[None, :, :2], axis=2)
    free = (distance > _MIN_DISTANCE * (circles[:, 2] + radius)).all(axis=1)
    if not free.any():
        return None
    return np.array([*centres[int(free.argmax())], radius])
