"""Precision at fixed recall points from judged detections (PASCAL VOC's interpolation, COCO's 101 points)."""

from __future__ import annotations

import numpy as np

RECALL_POINTS = np.linspace(0.0, 1.0, 101)
"""``[R]`` float64."""
_CELLS = 1 << 21
"""Detections times thresholds worked on at once; bounds the memory, not the result."""


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
    num_areas, num_thresholds, num_dets = matched.shape
    num_classes = len(num_gt)
    order = np.lexsort((-det_score, det_label))
    label, rank = det_label[order], det_rank[order]
    precision = np.full((num_areas, num_thresholds, num_classes, len(RECALL_POINTS)), -1.0)
    recall = np.full((num_areas, num_thresholds, num_classes, len(max_dets)), -1.0)
    at_once = max(1, _CELLS // max(num_dets, 1))
    for area in range(num_areas):
        needed = _true_positives_needed(num_gt[:, area])
        for start in range(0, num_thresholds, at_once):
            part = slice(start, start + at_once)
            counted = ~ignored[area, part][:, order]
            true = matched[area, part][:, order] & counted
            curves = _curves(true, counted, label, rank, num_gt[:, area], needed, max_dets)
            precision[area, part], recall[area, part] = curves
    return np.transpose(precision, (1, 3, 2, 0)), np.transpose(recall, (1, 2, 0, 3))


def _true_positives_needed(num_gt: np.ndarray) -> np.ndarray:
    """``[C, R]`` int64 for each recall point, at least 1, found as official code does it: by comparing tp / total."""
    totals, which = np.unique(num_gt, return_inverse=True)
    needed = [np.searchsorted(np.arange(total + 1) / max(total, 1), RECALL_POINTS, side="left") for total in totals]
    return np.maximum(np.stack(needed), 1)[which] if len(totals) else np.zeros((0, len(RECALL_POINTS)), dtype=np.int64)


def _curves(
    true: np.ndarray,
    counted: np.ndarray,
    label: np.ndarray,
    rank: np.ndarray,
    num_gt: np.ndarray,
    needed: np.ndarray,
    max_dets: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Precision ``[T, C, R]`` and recall ``[T, C, M]`` in one size range; detections by class and falling score.

    Between two true positives precision only falls, so the best one from some recall on is that of a true positive.
    """
    num_thresholds, num_classes = len(true), len(num_gt)
    threshold, det = np.nonzero(true)
    group = threshold * num_classes + label[det]
    per_group = np.bincount(group, minlength=num_thresholds * num_classes)
    first = np.cumsum(per_group) - per_group
    tp = np.arange(1, len(det) + 1) - first[group]
    class_starts = np.searchsorted(label, np.arange(num_classes))
    seen = np.concatenate([np.zeros((num_thresholds, 1), np.int32), np.cumsum(counted, axis=1, dtype=np.int32)], axis=1)
    fp = seen[threshold, det + 1] - seen[threshold, class_starts[label[det]]] - tp
    best = _best_from_here(tp / (fp.astype(np.float64) + tp + np.spacing(1)), group)

    position = first.reshape(num_thresholds, num_classes, 1) + needed - 1
    reached = needed <= per_group.reshape(num_thresholds, num_classes, 1)
    precision = np.zeros(position.shape)
    precision[reached] = best[position[reached]]
    recall = np.empty((num_thresholds, num_classes, len(max_dets)))
    for m, max_det in enumerate(max_dets):
        found = np.bincount(group[rank[det] < max_det], minlength=num_thresholds * num_classes)
        recall[..., m] = found.reshape(num_thresholds, num_classes) / np.maximum(num_gt, 1)
    precision[:, num_gt == 0], recall[:, num_gt == 0] = -1, -1
    return precision, recall


def _best_from_here(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Largest value of this and all later entries of the same group; ``group`` is sorted."""
    distinct, place = np.unique(values, return_inverse=True)
    # Whole numbers that rise from group to group, from the last to the first, so that one running maximum does.
    keys = (group[-1:] - group) * max(len(distinct), 1) + place
    best = np.maximum.accumulate(keys[::-1])[::-1] - (keys - place)
    return np.asarray(distinct[best]) if len(values) else values
