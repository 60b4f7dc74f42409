"""Overlaps of one problem's detections and ground truth, by the kind of shape that is compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.errors import DataError
from aegl.metrics.boundary import boundary_edges
from aegl.metrics.iou import Edges, box_edges, mask_edges

if TYPE_CHECKING:
    from aegl.metrics.scoring import Problem

Rles = list[dict[str, Any]]
Overlaps = Callable[["Problem", np.ndarray, np.ndarray, np.ndarray, np.ndarray, float], Edges]
"""Problem, rows of detections and of ground truth, the pair of each (sorted), smallest overlap to keep."""


def _box_overlaps(
    problem: Problem,
    det_rows: np.ndarray,
    gt_rows: np.ndarray,
    det_pair: np.ndarray,
    gt_pair: np.ndarray,
    threshold: float,
) -> Edges:
    det_boxes, gt_boxes = problem.table.boxes_xywh_orig[det_rows], problem.gt.ann_boxes_xywh[gt_rows]
    return box_edges(det_pair, gt_pair, det_boxes, gt_boxes, problem.gt_crowd[gt_rows], threshold)


def _mask_overlaps(
    problem: Problem,
    det_rows: np.ndarray,
    gt_rows: np.ndarray,
    det_pair: np.ndarray,
    gt_pair: np.ndarray,
    threshold: float,
) -> Edges:
    def det_rles(positions: np.ndarray) -> Rles:
        return _det_rles(problem, det_rows[positions])

    def gt_rles(positions: np.ndarray) -> Rles:
        return _gt_rles(problem, gt_rows[positions])

    return mask_edges(det_pair, gt_pair, det_rles, gt_rles, problem.gt_crowd[gt_rows], threshold)


def _boundary_overlaps(
    problem: Problem,
    det_rows: np.ndarray,
    gt_rows: np.ndarray,
    det_pair: np.ndarray,
    gt_pair: np.ndarray,
    threshold: float,
) -> Edges:
    return boundary_edges(
        _mask_overlaps(problem, det_rows, gt_rows, det_pair, gt_pair, threshold),
        lambda position: _det_rles(problem, det_rows[[position]])[0],
        lambda position: _gt_rles(problem, gt_rows[[position]])[0],
        problem.gt_crowd[gt_rows],
        threshold,
    )


OVERLAPS: dict[str, Overlaps] = {"bbox": _box_overlaps, "segm": _mask_overlaps, "boundary": _boundary_overlaps}
"""By IoU type."""


def _det_rles(problem: Problem, rows: np.ndarray) -> Rles:
    """Masks of detections in pycocotools' form."""
    masks = problem.table.masks
    if masks is None:
        raise DataError("the detections hold no masks: score their boxes, or give results with segmentations")
    sizes = problem.gt.image_sizes[problem.table.image_index[rows]].tolist()
    return [{"size": size, "counts": counts} for size, counts in zip(sizes, masks.counts(rows), strict=True)]


def _gt_rles(problem: Problem, rows: np.ndarray) -> Rles:
    """Masks of ground truth in pycocotools' form."""
    sizes = problem.gt.image_sizes[problem.gt.ann_image[rows]].tolist()
    counts = map(problem.gt.counts, rows.tolist())
    return [{"size": size, "counts": mask} for size, mask in zip(sizes, counts, strict=True)]
