"""Batches of images of like shape: a batch is padded to its widest and tallest image, so mixed shapes waste work."""

from __future__ import annotations

import numpy as np

_BOUNDS = (2**-0.5, 1.0, 2**0.5)  # tall, upright, broad, wide; a square is upright


def aspect_groups(image_sizes: np.ndarray) -> np.ndarray:
    """Group of each image by the ratio of its sides.

    Args:
        image_sizes: ``[I, 2]`` heights and widths in pixels, positive.

    Returns:
        ``[I]`` int64 in ``0..3``, rising with width / height; bounds are at 1 and a factor of the square root of two to
        either side.
    """
    height, width = np.asarray(image_sizes, dtype=np.float64).reshape(-1, 2).T
    return np.searchsorted(_BOUNDS, width / height, side="left").astype(np.int64)


def grouped_order(groups: np.ndarray, size: int, head: int = 0) -> np.ndarray:
    """An order in which runs of ``size`` entries are of one group, as close to the given order as that allows.

    A run stands where its last entry stood. What does not fill a run comes last, group by group. Entries of one group
    keep their order; if there is but one group, all do.

    Args:
        groups: ``[L]`` group of each entry.
        size: entries of a run.
        head: entries at the beginning that stay where they are.

    Returns:
        ``[L]`` int64 permutation of ``0..L-1``.
    """
    length, head = len(groups), min(head, len(groups))
    run_end = np.arange(length)
    for group in np.unique(groups[head:]):
        members = head + np.flatnonzero(groups[head:] == group)
        whole = len(members) // size * size
        run_end[members[:whole]] = np.repeat(members[size - 1 : whole : size], size)
        run_end[members[whole:]] = length + group
    return np.argsort(run_end, kind="stable")
