"""Boundary IoU of masks (Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, 2021).

A mask's boundary are its pixels within a distance ``d`` of its contour, ``d`` being 2 % of the image's diagonal. Two
masks overlap by the smaller of their mask IoU and the IoU of their boundaries, as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from aegl.metrics.iou import Edges
from aegl.metrics.rle import runs_of

DILATION_RATIO = 0.02
"""Width of a boundary as a share of the image's diagonal."""
_KEPT = 512
"""Boundaries of ground truth kept at hand; those of one image and class are asked for together."""


@dataclass(frozen=True)
class Boundary:
    """Pixels of a boundary, within the box around its mask.

    Args:
        top, left: where the box begins in the image.
        pixels: ``[h, w]`` bool.
        area: number of pixels that are set.
    """

    top: int
    left: int
    pixels: np.ndarray
    area: int


def boundary_edges(
    edges: Edges,
    det_rle: Callable[[int], dict[str, object]],
    gt_rle: Callable[[int], dict[str, object]],
    gt_crowd: np.ndarray,
    threshold: float,
) -> Edges:
    """Turn overlaps of masks into the smaller of mask and boundary IoU; only those of ``threshold`` and more are kept.

    Args:
        edges: mask IoU of at least ``threshold``: no other pair can reach it.
        det_rle, gt_rle: the mask at a position, in pycocotools' form.
        gt_crowd: ``[G]`` bool; crowds keep their mask IoU.
        threshold: smallest overlap to keep.
    """
    det_boundary = lru_cache(maxsize=1)(lambda position: boundary_of(det_rle(position)))
    gt_boundary = lru_cache(maxsize=_KEPT)(lambda position: boundary_of(gt_rle(position)))
    iou = edges.iou.copy()
    for row in np.flatnonzero(~gt_crowd[edges.gt]):
        det, gt = det_boundary(int(edges.det[row])), gt_boundary(int(edges.gt[row]))
        iou[row] = min(iou[row], boundary_iou(det, gt))
    return Edges(edges.det, edges.gt, iou).at_least(threshold)


def boundary_of(rle: dict[str, object]) -> Boundary:
    """The boundary of one valid compressed mask; pixels at the border of the image are part of it."""
    height, width = (int(v) for v in rle["size"])  # type: ignore[attr-defined]
    top, left, mask = _crop(runs_of(rle["counts"]), height)  # type: ignore[arg-type]
    pixels = mask & ~_eroded(mask, max(1, round(DILATION_RATIO * math.hypot(height, width))))
    return Boundary(top, left, pixels, int(np.count_nonzero(pixels)))


def boundary_iou(a: Boundary, b: Boundary) -> float:
    """IoU in [0, 1] of two boundaries in the same image; 0 for two empty ones."""
    top, left = max(a.top, b.top), max(a.left, b.left)
    bottom = min(a.top + a.pixels.shape[0], b.top + b.pixels.shape[0])
    right = min(a.left + a.pixels.shape[1], b.left + b.pixels.shape[1])
    if top >= bottom or left >= right:
        return 0.0
    shared_a, shared_b = (m.pixels[top - m.top : bottom - m.top, left - m.left : right - m.left] for m in (a, b))
    intersection = np.count_nonzero(shared_a & shared_b)
    return float(intersection / (a.area + b.area - intersection)) if intersection else 0.0


def _crop(runs: np.ndarray, height: int) -> tuple[int, int, np.ndarray]:
    """Top, left and the pixels (bool) of the box around a mask; nothing outside its columns is decoded."""
    ends = runs.cumsum()
    filled = np.flatnonzero(runs[1::2]) * 2 + 1
    if not len(filled):
        return 0, 0, np.zeros((0, 0), dtype=bool)
    left = int(ends[filled[0] - 1]) // height
    right = -(-int(ends[filled[-1]]) // height)
    inside = np.diff(np.clip(ends, left * height, right * height), prepend=left * height)
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, inside).reshape(right - left, height).T
    rows = np.flatnonzero(mask.any(axis=1))
    return int(rows[0]), left, mask[rows[0] : rows[-1] + 1]


def _eroded(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels all of whose neighbours up to ``distance`` rows and columns away are set; nothing is set outside."""
    window = 2 * distance + 1
    eroded = np.zeros_like(mask)
    if min(mask.shape) >= window:
        whole = _whole_stretches(_whole_stretches(mask, window).T, window).T
        eroded[distance:-distance, distance:-distance] = whole
    return eroded


def _whole_stretches(mask: np.ndarray, window: int) -> np.ndarray:
    """Whether all of each ``window`` successive rows are set, per column."""
    total = np.zeros((mask.shape[0] + 1, mask.shape[1]), dtype=np.int32)
    np.cumsum(mask, axis=0, out=total[1:])
    return np.asarray(total[window:] - total[:-window] == window)
