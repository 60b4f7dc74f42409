"""In which order training sees the images, and how often: the stream that all samplers share, and repeat factors (RFS).

Everything is a pure function of seed and epoch, so a run can go on from any point without having kept any state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from aegl.data.aspect import grouped_order
from aegl.data.occurrence import occurrences

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore

logger = logging.getLogger("aegl")

NO_FOCUS = -1
"""In place of a class: the image was not drawn for the sake of any."""
Rounding = Literal["stochastic", "ceil"]

_STREAM = 0x5A3D1E5  # keeps the sampler's random streams apart from all others that use the same seed


class Key(NamedTuple):
    """What a training sample depends on, beside the seed."""

    epoch: int
    position: int
    """In the epoch, over all processes."""
    image: int
    """Row of the image in the store."""
    focus: int = NO_FOCUS
    """Class for whose sake the image was drawn, or :data:`NO_FOCUS`."""


class Draws(NamedTuple):
    """One epoch, over all processes."""

    images: np.ndarray
    """``[L]`` int64 rows of images, in the order they are shown unless they are grouped."""
    focus: np.ndarray
    """``[L]`` int64 class that each was drawn for, or :data:`NO_FOCUS`."""


class SamplingRule(Protocol):
    """What an epoch holds; the one thing that samplers differ in."""

    @property
    def classes(self) -> np.ndarray:
        """``[C]`` float64: how often a class has its images shown for its own sake, on average over its images.

        0 for a class without images; empty where classes play no part.
        """

    @property
    def image_counts(self) -> np.ndarray:
        """``[C]`` int64, images that contain each class; empty like :attr:`classes`."""

    @property
    def expected_repeats(self) -> np.ndarray:
        """``[I]`` float64: how often an epoch shows each image, on average over epochs; 0 leaves it out."""

    def draw(self, rng: np.random.Generator) -> Draws:
        """One epoch. All chance comes from ``rng``, which belongs to this epoch alone."""


@dataclass(frozen=True)
class RepeatFactors:
    """Every image as often as its factor says, in random order.

    Args:
        images: ``[I]`` float64 repeat factors of the images, at least 1 (0 leaves an image out).
        classes: ``[C]`` float64 repeat factors of the classes, 0 for one without images; empty without repeats.
        image_counts: ``[C]`` int64, images that contain each class.
        rounding: how fractional factors are rounded; "stochastic" draws anew each epoch.
    """

    images: np.ndarray
    classes: np.ndarray
    image_counts: np.ndarray
    rounding: Rounding = "stochastic"

    @classmethod
    def uniform(cls, num_images: int) -> RepeatFactors:
        """Every image once."""
        return cls(np.ones(num_images), np.zeros(0), np.zeros(0, dtype=np.int64))

    def without(self, left_out: np.ndarray) -> RepeatFactors:
        """The same factors, but images are left out where ``left_out`` (``[I]`` bool) is true."""
        return replace(self, images=np.where(left_out, 0.0, self.images))

    @property
    def expected_repeats(self) -> np.ndarray:
        """``[I]`` float64."""
        return np.ceil(self.images) if self.rounding == "ceil" else self.images

    def draw(self, rng: np.random.Generator) -> Draws:
        """Each image as often as its rounded factor, in random order; drawn for no class."""
        repeats = round_factors(self.images, self.rounding, rng.random(len(self.images)))
        images = rng.permutation(np.repeat(np.arange(len(repeats)), repeats))
        return Draws(images, np.full(len(images), NO_FOCUS))


def repeat_factors(store: AnnotationStore, num_classes: int, threshold: float, power: float = 0.5) -> RepeatFactors:
    """Repeat factors of the LVIS paper (Gupta et al. 2019, section 5.2), from the annotations that are trained on.

    Crowd annotations do not count, since they are no training targets.
    """
    images = np.repeat(np.arange(len(store.image_ids)), np.diff(store.ann_offsets))
    single = ~np.asarray(store.ann_crowd, dtype=bool)
    labels = np.asarray(store.ann_labels)[single]
    return repeat_factors_from_labels(images[single], labels, len(store.image_ids), num_classes, threshold, power)


def repeat_factors_from_labels(
    images: np.ndarray, labels: np.ndarray, num_images: int, num_classes: int, threshold: float, power: float = 0.5
) -> RepeatFactors:
    """``f_c`` = share of images with class ``c``; ``r_c = max(1, (t / f_c) ** power)``; ``r_I = max`` of its classes.

    Args:
        images: ``[A]`` integer image index of each annotation.
        labels: ``[A]`` integer class of each annotation, ``0..C-1``.
        num_images: all images, also those without annotation (their factor is 1).
        num_classes: ``C``.
        threshold: share ``t`` below which a class is repeated, in (0, 1].
        power: 0.5 in the paper.
    """
    pair_images, pair_labels = occurrences(images, labels, num_classes)
    counts = np.bincount(pair_labels, minlength=num_classes)
    share = np.maximum(counts, 1) / max(num_images, 1)
    classes = np.where(counts > 0, np.maximum(1.0, (threshold / share) ** power), 0.0)
    per_image = np.ones(num_images)
    np.maximum.at(per_image, pair_images, classes[pair_labels])
    return RepeatFactors(per_image, classes, counts)


def round_factors(factors: np.ndarray, rounding: Rounding, uniforms: np.ndarray) -> np.ndarray:
    """Whole repeats ``[I]`` int64: up, or to the next whole number with the probability of the fraction.

    ``uniforms`` are ``[I]`` draws from [0, 1); only "stochastic" uses them.
    """
    if rounding == "ceil":
        return np.ceil(factors).astype(np.int64)
    whole = np.floor(factors)
    return whole.astype(np.int64) + (uniforms < factors - whole)


class EpochSampler:
    """An endless stream of images, epoch after epoch of a rule.

    The epochs of all processes together form one stream; step ``k`` takes its next ``batch_size * world_size`` entries,
    of which each process takes every ``world_size``-th. So nothing is dropped, nothing is added to make batches even (a
    batch may span two epochs), all processes have equally many batches, and which images a step sees does not depend on
    the number of processes as long as the whole batch is the same.

    With ``groups`` an epoch's entries are put in an order in which the images of a step are of one group, on all
    processes. The exceptions are few: the step that an epoch begins with, if the one before has left it incomplete, and
    the last ones of an epoch, which take what fills no step of its group. Every image is still shown as often.

    Args:
        rule: what an epoch holds.
        batch_size: images per batch of one process.
        seed: the same on every process.
        rank: of this process.
        world_size: number of processes.
        groups: ``[I]`` int64 group of each image, see :func:`aegl.data.aspect.aspect_groups`; None for no groups.
    """

    def __init__(
        self,
        rule: SamplingRule,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        groups: np.ndarray | None = None,
    ) -> None:
        self.rule = rule
        self.groups = groups
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    @property
    def epoch_length(self) -> float:
        """Images of an epoch over all processes, on average over epochs."""
        return float(self.rule.expected_repeats.sum())

    def draws(self, epoch: int) -> Draws:
        """One epoch over all processes, a pure function of seed and epoch.

        Raises:
            ValueError: if it is empty.
        """
        drawn = self.rule.draw(np.random.default_rng([_STREAM, self.seed, epoch]))
        if not len(drawn.images):
            raise ValueError("no image to sample: the data set is empty or every factor is 0")
        return drawn

    def state(self, consumed_batches: int) -> tuple[int, int]:
        """Epoch, and position in it over all processes, after so many batches of every process."""
        position = consumed_batches * self.batch_size * self.world_size
        epoch = 0
        while position >= (length := len(self.draws(epoch).images)):
            position -= length
            epoch += 1
        return epoch, position

    def batches(self, consumed_batches: int = 0) -> Iterator[list[Key]]:
        """This process's batches of keys, without end, after leaving out the first ``consumed_batches``."""
        keys = self._keys(consumed_batches)
        while True:
            yield [next(keys) for _ in range(self.batch_size)]

    def substitutes(self, key: Key) -> Iterator[Key]:
        """What may stand in for a key whose image cannot be read: other images of its epoch, each once.

        A pure function of seed and key. Those of the same group come first.
        """
        images, focus = self.draws(key.epoch)
        first = int(np.random.default_rng([_STREAM, self.seed, key.epoch, key.position]).integers(len(images)))
        order = np.roll(np.arange(len(images)), -first)
        if self.groups is not None:
            order = order[np.argsort(self.groups[images[order]] != self.groups[key.image], kind="stable")]
        seen = {key.image}
        for row in order.tolist():
            image = int(images[row])
            if image not in seen:
                seen.add(image)
                yield Key(key.epoch, key.position, image, int(focus[row]))

    def describe(self, epoch: int = 0) -> dict[str, Any]:
        """For the log: ``images``, ``epoch_length`` of that epoch, ``factor_rarest``, ``factor_median``.

        The factors are those of the classes that occur, ordered by image count; 1 without classes.
        """
        factors = {"factor_rarest": 1.0, "factor_median": 1.0}
        present = self.rule.image_counts > 0
        if present.any():
            by_count = self.rule.classes[present][np.argsort(self.rule.image_counts[present], kind="stable")]
            factors = {"factor_rarest": float(by_count[0]), "factor_median": float(by_count[len(by_count) // 2])}
        return {
            "images": len(self.rule.expected_repeats),
            "epoch_length": len(self.draws(epoch).images),
            **factors,
        }

    def _keys(self, consumed_batches: int) -> Iterator[Key]:
        epoch, position = self.state(consumed_batches)
        begin = consumed_batches * self.batch_size * self.world_size - position  # of the epoch, in the stream
        position += self.rank
        while True:
            images, focus = self._grouped(self.draws(epoch), begin)
            self._log(epoch)
            for here in range(position, len(images), self.world_size):
                yield Key(epoch, here, int(images[here]), int(focus[here]))
                position = here + self.world_size
            position -= len(images)
            begin += len(images)
            epoch += 1

    def _grouped(self, drawn: Draws, begin: int) -> Draws:
        """The epoch that begins at a place of the stream, in the order it is shown."""
        if self.groups is None:
            return drawn
        step = self.batch_size * self.world_size
        order = grouped_order(self.groups[drawn.images], step, head=-begin % step)
        return Draws(drawn.images[order], drawn.focus[order])

    def _log(self, epoch: int) -> None:
        """What is drawn; of all but the first epoch, which are alike, only where details are wanted."""
        if self.rank == 0:
            logger.log(
                logging.DEBUG if epoch else logging.INFO,
                "epoch %(epoch)d: %(epoch_length)d images, repeat factor of the rarest class %(factor_rarest).2f, "
                "of the median class %(factor_median).2f",
                {"epoch": epoch, **self.describe(epoch)},
            )
