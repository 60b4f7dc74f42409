"""Precision at fixed recall points from judged detections (PASCAL VOC's interpolation, COCO's 101 points)."""

from __future__ import annotations

import numpy as np

RECALL_POINTS = np.linspace(0.0, 1.0, 101)
"""``[R]`` float64."""


def precision_recall(
    *,
    det_label: np.ndarray,
    det_score: np.ndarray,
    det_rank: np.ndarray,
    matched: np.ndarray,
    ignored: np.ndarray,
    num_gt: np.ndarray,
    max_dets: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolated precision and final recall of every class.

    Args:
        det_label: ``[D]`` int64, sorted; within a class detections come by image, within an image by falling score.
        det_score: ``[D]`` float64.
        det_rank: ``[D]`` int64 rank by score within image and class.
        matched: ``[A, T, D]`` bool.
        ignored: ``[A, T, D]`` bool: neither true nor false positives.
        num_gt: ``[C, A]`` int64 ground truth to be found.
        max_dets: rising numbers of detections per image and class; precision is computed with the last.

    Returns:
        precision ``[T, R, C, A]`` and recall ``[T, C, A, len(max_dets)]``, float64, -1 where ``num_gt`` is 0.
    """
    num_areas, num_thresholds = matched.shape[:2]
    num_classes = len(num_gt)
    precision = np.full((num_thresholds, len(RECALL_POINTS), num_classes, num_areas), -1.0)
    recall = np.full((num_thresholds, num_classes, num_areas, len(max_dets)), -1.0)
    starts = np.searchsorted(det_label, np.arange(num_classes + 1))
    for label in np.flatnonzero(num_gt.any(axis=1)):
        rows = np.arange(starts[label], starts[label + 1])
        rows = rows[np.argsort(-det_score[rows], kind="stable")]
        counted = ~ignored[:, :, rows]
        true = matched[:, :, rows] & counted
        false = ~matched[:, :, rows] & counted
        for area in np.flatnonzero(num_gt[label]):
            total = int(num_gt[label, area])
            precision[:, :, label, area] = _interpolate(true[area], false[area], total)
            for m, max_det in enumerate(max_dets):
                kept = det_rank[rows] < max_det
                recall[:, label, area, m] = np.count_nonzero(true[area] & kept, axis=1) / total
    return precision, recall


def _interpolate(true: np.ndarray, false: np.ndarray, total: int) -> np.ndarray:
    """``[T, R]`` best precision at each recall or more; 0 where the recall is not reached."""
    num_thresholds, num_dets = true.shape
    result = np.zeros((num_thresholds, len(RECALL_POINTS)))
    if not num_dets:
        return result
    tp = np.cumsum(true, axis=1)
    fp = np.cumsum(false, axis=1)
    precision = tp / (fp.astype(np.float64) + tp + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # True positives needed for each recall point, found as official code finds them: by comparing tp / total.
    needed = np.searchsorted(np.arange(total + 1) / total, RECALL_POINTS, side="left")
    for t in range(num_thresholds):
        position = np.searchsorted(tp[t], needed, side="left")
        reached = position < num_dets
        result[t, reached] = best[t, position[reached]]
    return result
