"""Groups of classes: which parts of a model make them, and k-means that gives the same ones whenever it is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_RESTARTS = 4
_ITERATIONS = 100
_SEED = 0


class GroupsClasses(Protocol):
    """What :class:`aegl.longtail.base.ClassificationLoss` says of these members, for any part of a model."""

    class_descriptions: tuple[str, ...]
    class_tables: tuple[str, ...]

    def describe_classes(self, vectors: Mapping[str, Tensor]) -> None:
        """Group the classes by what they are like."""
        ...


def grouping_parts(model: nn.Module) -> Iterator[tuple[str, GroupsClasses]]:
    """The submodules that want the classes described to them, with their names."""
    for name, module in model.named_modules():
        if getattr(module, "class_descriptions", ()):
            yield name, cast(GroupsClasses, module)


def class_tables(model: nn.Module) -> list[str]:
    """Names of the model's tensors that say how classes are grouped."""
    return [f"{name}.{table}" for name, part in grouping_parts(model) for table in part.class_tables]


def k_means(vectors: Tensor, clusters: int, *, metric: Literal["euclidean", "cosine"] = "euclidean") -> Tensor:
    """Group vectors by nearness: Lloyd's algorithm from k-means++ starts, the best of four. Does not touch torch's
    global generator.

    Args:
        vectors: ``[n, d]``, any float dtype and device; computed in float64 on the CPU.
        clusters: how many groups, 1 to ``n``; none is left empty.
        metric: ``cosine`` groups directions (spherical k-means); a zero vector has none and joins any group.

    Returns:
        ``[n]`` int64 on the CPU, numbered in the order in which the groups first occur.

    Raises:
        ValueError: if ``clusters`` is not in 1..n.
    """
    if not 1 <= clusters <= len(vectors):
        raise ValueError(f"{len(vectors)} vectors cannot be put into {clusters} groups, none of them empty")
    points = vectors.detach().double().cpu()
    spherical = metric == "cosine"
    if spherical:
        points = F.normalize(points, dim=1)
    generator = torch.Generator().manual_seed(_SEED)
    found = [_lloyd(points, clusters, spherical, generator) for _ in range(_RESTARTS)]
    _, best = min(found, key=lambda result: result[0])
    return _renumbered(best)


def _lloyd(points: Tensor, clusters: int, spherical: bool, generator: torch.Generator) -> tuple[float, Tensor]:
    """Sum of squared distances to the centres, and the groups."""
    centres = points[_spread_out(points, clusters, generator)]
    group = torch.full((len(points),), -1)
    for _ in range(_ITERATIONS):
        distance = _squared_distance(points, centres)
        nearest = _without_empty(distance.argmin(1), distance, clusters)
        if torch.equal(nearest, group):
            break
        group = nearest
        centres = torch.zeros_like(centres).index_add_(0, group, points) / group.bincount(minlength=clusters)[:, None]
        if spherical:
            centres = F.normalize(centres, dim=1)
    return float((points - centres[group]).square().sum()), group


def _spread_out(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Rows of the first centres: each drawn with a probability that grows with its distance to those before."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = _squared_distance(points, points[chosen]).squeeze(1)
    while len(chosen) < clusters:
        # Copies of chosen points have a distance of 0; only when there is nothing else, any unchosen one will do.
        odds = distance.index_fill(0, torch.tensor(chosen), 0.0)
        if not odds.any():
            odds = torch.ones_like(distance).index_fill_(0, torch.tensor(chosen), 0.0)
        chosen.append(int(torch.multinomial(odds, 1, generator=generator)))
        distance = torch.minimum(distance, _squared_distance(points, points[chosen[-1:]]).squeeze(1))
    return torch.tensor(chosen)


def _without_empty(nearest: Tensor, distance: Tensor, clusters: int) -> Tensor:
    """Every empty group gets the point farthest from its centre among groups that can spare one."""
    sizes = nearest.bincount(minlength=clusters)
    for empty in (sizes == 0).nonzero().flatten().tolist():
        far = distance.gather(1, nearest[:, None]).squeeze(1)
        row = int(far.masked_fill(sizes[nearest] == 1, -1.0).argmax())
        sizes[nearest[row]] -= 1
        sizes[empty] += 1
        nearest = nearest.index_fill(0, torch.tensor([row]), empty)
        distance = distance.clone()
        distance[row, empty] = 0.0
    return nearest


def _squared_distance(points: Tensor, centres: Tensor) -> Tensor:
    return torch.cdist(points, centres).square()


def _renumbered(group: Tensor) -> Tensor:
    first: dict[int, int] = {}
    return torch.tensor([first.setdefault(number, len(first)) for number in group.tolist()])
