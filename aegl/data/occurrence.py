"""Which class is in which image: what bands, samplers and splits count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Integers = Sequence[int] | np.ndarray


def occurrences(images: Integers, labels: Integers, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Each class of each image once, however many objects it has there.

    Args:
        images: ``[A]`` image index of each annotation.
        labels: ``[A]`` class of each annotation, ``0..C-1``.
        num_classes: ``C``.

    Returns:
        Two ``[P]`` int64 arrays, image and class, sorted by image, then class.
    """
    factor = max(num_classes, 1)
    pairs = np.unique(np.asarray(images, dtype=np.int64) * factor + np.asarray(labels, dtype=np.int64))
    image, label = np.divmod(pairs, factor)
    return image, label


def images_per_class(images: Integers, labels: Integers, num_classes: int) -> np.ndarray:
    """``[C]`` int64: in how many images each class is; arguments as of :func:`occurrences`."""
    return np.bincount(occurrences(images, labels, num_classes)[1], minlength=num_classes)
