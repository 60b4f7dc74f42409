"""Class-balanced sampling: every class equally often, whatever it has of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aegl.data.samplers import Draws

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore


@dataclass(frozen=True)
class ClassBalanced:
    """A class, uniformly among those that have an image, then one of its images, uniformly; both with replacement.

    The class is the draw's focus. This is the image half of SimCal's bi-level sampling (Wang et al., ECCV 2020), which
    draws the classes of each step so; the other half, which regions of the image count, reads the focus.

    Args:
        holders: ``[P]`` int64 rows of images, class by class.
        offsets: ``[C + 1]`` int64, where the images of each class begin.
        num_images: ``I``, all images, also those without objects, which are never drawn.
        length: draws of an epoch.
    """

    holders: np.ndarray
    offsets: np.ndarray
    num_images: int
    length: int

    @property
    def image_counts(self) -> np.ndarray:
        """``[C]`` int64."""
        return np.diff(self.offsets)

    @property
    def classes(self) -> np.ndarray:
        """``[C]`` float64: draws of a class in an epoch over its images."""
        present = self.image_counts > 0
        share = self.length / max(int(present.sum()), 1)
        return np.where(present, share / np.maximum(self.image_counts, 1), 0.0)

    @property
    def expected_repeats(self) -> np.ndarray:
        """``[I]`` float64: of an image, the sum over its classes."""
        weights = np.repeat(self.classes, self.image_counts)
        return np.bincount(self.holders, weights=weights, minlength=self.num_images)

    def draw(self, rng: np.random.Generator) -> Draws:
        """``length`` draws, each independent of the others."""
        present = np.flatnonzero(self.image_counts)
        if not len(present):
            return Draws(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        focus = present[rng.integers(len(present), size=self.length)]
        images = self.holders[self.offsets[focus] + rng.integers(self.image_counts[focus])]
        return Draws(images, focus)


def class_balanced(store: AnnotationStore, num_classes: int, length: int) -> ClassBalanced:
    """The rule for a store; crowd annotations do not count, since they are no training targets."""
    single = ~np.asarray(store.ann_crowd, dtype=bool)
    images = np.repeat(np.arange(len(store.image_ids)), np.diff(store.ann_offsets))[single]
    pairs = np.unique(np.asarray(store.ann_labels, dtype=np.int64)[single] * len(store.image_ids) + images)
    labels, holders = np.divmod(pairs, max(len(store.image_ids), 1))
    offsets = np.searchsorted(labels, np.arange(num_classes + 1))
    return ClassBalanced(holders, offsets, len(store.image_ids), length)
