"""Overlaps of detections with the ground truth of the same image and class, kept only where they can lead to a match.

Both sides come sorted by pair, a pair being one (class, image); only pairs that hold both are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

_BLOCK = 1 << 20
"""Overlaps computed at once; bounds the memory, not the result."""


@dataclass(frozen=True)
class Edges:
    """``E`` overlaps, sorted by detection, then by ground truth.

    Args:
        det: ``[E]`` int64 position of the detection.
        gt: ``[E]`` int64 position of the ground truth.
        iou: ``[E]`` float64 in [0, 1].
    """

    det: np.ndarray
    gt: np.ndarray
    iou: np.ndarray

    def at_least(self, threshold: float) -> Edges:
        """Only the overlaps of ``threshold`` and more."""
        keep = self.iou >= threshold
        return Edges(self.det[keep], self.gt[keep], self.iou[keep])

    @classmethod
    def concatenate(cls, parts: list[Edges]) -> Edges:
        """All overlaps of several blocks, in order."""
        none = np.zeros(0, dtype=np.int64)
        return cls(
            np.concatenate([none, *(p.det for p in parts)]),
            np.concatenate([none, *(p.gt for p in parts)]),
            np.concatenate([np.zeros(0), *(p.iou for p in parts)]),
        )


def box_edges(
    det_pair: np.ndarray,
    gt_pair: np.ndarray,
    det_boxes: np.ndarray,
    gt_boxes: np.ndarray,
    gt_crowd: np.ndarray,
    threshold: float,
) -> Edges:
    """Overlaps of boxes.

    Args:
        det_pair: ``[D]`` int64 pair of each detection, sorted.
        gt_pair: ``[G]`` int64 pair of each ground truth, sorted.
        det_boxes: ``[D, 4]`` float64 ``x y w h``.
        gt_boxes: ``[G, 4]`` float64 ``x y w h``.
        gt_crowd: ``[G]`` bool; with a crowd the union is the detection alone, as in pycocotools.
        threshold: smallest overlap to keep.
    """
    first = np.searchsorted(gt_pair, det_pair, side="left")
    count = np.searchsorted(gt_pair, det_pair, side="right") - first
    rows = np.flatnonzero(count)
    parts = []
    for block in _blocks(rows, count[rows]):
        det = np.repeat(block, count[block])
        start = np.cumsum(count[block]) - count[block]
        gt = np.arange(len(det)) + np.repeat(first[block] - start, count[block])
        parts.append(Edges(det, gt, _box_iou(det_boxes[det], gt_boxes[gt], gt_crowd[gt])).at_least(threshold))
    return Edges.concatenate(parts)


def _blocks(rows: np.ndarray, cost: np.ndarray) -> Iterator[np.ndarray]:
    total = np.cumsum(cost)
    start = 0
    while start < len(rows):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + _BLOCK, side="right")))
        yield rows[start:stop]
        start = stop


def _box_iou(det: np.ndarray, gt: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    # The order of operations is pycocotools', so that the last bit agrees.
    width = np.minimum(det[:, 2] + det[:, 0], gt[:, 2] + gt[:, 0]) - np.maximum(det[:, 0], gt[:, 0])
    height = np.minimum(det[:, 3] + det[:, 1], gt[:, 3] + gt[:, 1]) - np.maximum(det[:, 1], gt[:, 1])
    overlap = (width > 0) & (height > 0)
    intersection = np.where(overlap, width * height, 0.0)
    det_area = det[:, 2] * det[:, 3]
    union = np.where(crowd, det_area, det_area + gt[:, 2] * gt[:, 3] - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=overlap)


def mask_edges(
    det_pair: np.ndarray,
    gt_pair: np.ndarray,
    det_rles: Callable[[np.ndarray], list[dict[str, Any]]],
    gt_rles: Callable[[np.ndarray], list[dict[str, Any]]],
    gt_crowd: np.ndarray,
    threshold: float,
) -> Edges:
    """Overlaps of masks; ``det_rles`` and ``gt_rles`` give those at some positions, the rest as in :func:`box_edges`.

    Only masks of pairs that hold both are asked for. Of these pycocotools compares the runs of those alone whose boxes
    overlap; the boxes that come with detections need not hold their masks and could not tell.
    """
    det, gt = np.flatnonzero(np.isin(det_pair, gt_pair)), np.flatnonzero(np.isin(gt_pair, det_pair))
    det_masks, gt_masks = det_rles(det), gt_rles(gt)
    crowd = gt_crowd[gt].astype(np.uint8)
    ious = []
    det_ends, gt_ends = (_ends(pair) for pair in (det_pair[det], gt_pair[gt]))
    d0 = g0 = 0
    for d1, g1 in zip(det_ends.tolist(), gt_ends.tolist(), strict=True):
        ious.append(np.reshape(mask_utils.iou(det_masks[d0:d1], gt_masks[g0:g1], crowd[g0:g1]), -1))
        d0, g0 = d1, g1
    # Every detection of a pair against every ground truth of it, as the matrices above are laid out.
    width = np.repeat(np.diff(gt_ends, prepend=0), np.diff(det_ends, prepend=0))
    first = np.repeat(np.concatenate([[0], gt_ends])[:-1], np.diff(det_ends, prepend=0))
    column = np.arange(int(width.sum())) - np.repeat(np.cumsum(width) - width, width)
    overlaps = np.concatenate([np.zeros(0), *ious])
    return Edges(np.repeat(det, width), gt[np.repeat(first, width) + column], overlaps).at_least(threshold)


def _ends(pair: np.ndarray) -> np.ndarray:
    """Where each stretch of equal values ends."""
    return np.append(np.flatnonzero(np.diff(pair)) + 1, len(pair)) if len(pair) else np.zeros(0, dtype=np.int64)
