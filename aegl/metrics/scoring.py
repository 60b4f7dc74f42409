"""From rows of detections and ground truth to precision and recall: the core both protocols share.

A protocol says which detections count and what is ignored (:class:`Problem`); everything else is the same for both.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from aegl.errors import DataError
from aegl.metrics.detections import DetectionTable
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.iou import Edges, box_edges, mask_edges
from aegl.metrics.matching import greedy_match
from aegl.metrics.precision import precision_recall
from aegl.metrics.rle import as_rle

log = logging.getLogger("aegl")

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""``[T]`` float64."""
AREA_RANGES = np.array([[0.0, 1e10], [0.0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]])
"""``[A, 2]`` square pixels, both ends included: all, small, medium, large."""


@dataclass(frozen=True)
class Problem:
    """What one protocol scores.

    Args:
        gt: the ground truth.
        table: the detections.
        rows: ``[D]`` int64 rows of ``table`` that count.
        gt_ignore: ``[G]`` bool: neither to be found nor wrong to find.
        gt_crowd: ``[G]`` bool: may be matched often, overlap measured against the detection's area.
        lenient: ``[D]`` bool: not a false positive where unmatched.
        max_dets: rising numbers of detections per image and class to compute recall at; the last bounds all.
    """

    gt: GroundTruth
    table: DetectionTable
    rows: np.ndarray
    gt_ignore: np.ndarray
    gt_crowd: np.ndarray
    lenient: np.ndarray
    max_dets: tuple[int, ...]


@dataclass(frozen=True)
class Curves:
    """Precision and recall of all classes; -1 where a class has no ground truth to find.

    Args:
        precision: ``[T, R, C, A]`` float64 at 101 recall points, with the largest number of detections.
        recall: ``[T, C, A, M]`` float64, the largest recall with each number of detections.
        max_dets: the ``M`` numbers of detections.
    """

    precision: np.ndarray
    recall: np.ndarray
    max_dets: tuple[int, ...]


def score(problem: Problem, iou_type: str) -> Curves:
    """Match and accumulate.

    Args:
        problem: what to score.
        iou_type: ``bbox`` or ``segm``.

    Raises:
        DataError: if masks are asked for and the detections or a ground truth have none.
    """
    gt, table = problem.gt, problem.table
    num_images = len(gt.image_ids)
    image_rank = gt.image_order
    gt_key = gt.ann_labels * num_images + image_rank[gt.ann_image]
    gt_rows = np.argsort(gt_key, kind="stable")
    gt_pair = gt_key[gt_rows]

    det_key = table.label[problem.rows].astype(np.int64) * num_images + image_rank[table.image_index[problem.rows]]
    order = np.lexsort((-table.score[problem.rows], det_key))
    det_rank = np.arange(len(order)) - np.searchsorted(det_key[order], det_key[order], side="left")
    order, det_rank = (v[det_rank < problem.max_dets[-1]] for v in (order, det_rank))
    det_rows, det_pair = problem.rows[order], det_key[order]

    gt_crowd = problem.gt_crowd[gt_rows]
    gt_ignore = problem.gt_ignore[gt_rows] | _outside(gt.ann_areas[gt_rows])
    find = {"bbox": _box_edges, "segm": _mask_edges}[iou_type]
    edges = find(problem, det_rows, gt_rows, det_pair, gt_pair, gt_crowd)
    match = greedy_match(edges, det_pair, gt_pair, gt_ignore, gt_crowd, IOU_THRESHOLDS)

    matched, ignored = _verdicts(match, gt_ignore, _is_marked(gt, gt_rows))
    ignored |= ~matched & (_outside(table.areas()[det_rows]) | problem.lenient[order])[:, None, :]
    precision, recall = precision_recall(
        det_label=det_pair // num_images,
        det_score=table.score[det_rows],
        det_rank=det_rank,
        matched=matched,
        ignored=ignored,
        num_gt=_count_gt(gt.ann_labels[gt_rows], gt_ignore, gt.num_classes),
        max_dets=problem.max_dets,
    )
    return Curves(precision, recall, problem.max_dets)


def _outside(areas: np.ndarray) -> np.ndarray:
    """``[A, N]`` bool: areas outside each size range."""
    return np.asarray((areas < AREA_RANGES[:, :1]) | (areas > AREA_RANGES[:, 1:]))


def _box_edges(
    problem: Problem,
    det_rows: np.ndarray,
    gt_rows: np.ndarray,
    det_pair: np.ndarray,
    gt_pair: np.ndarray,
    gt_crowd: np.ndarray,
) -> Edges:
    det_boxes, gt_boxes = problem.table.boxes_xywh_orig[det_rows], problem.gt.ann_boxes_xywh[gt_rows]
    return box_edges(det_pair, gt_pair, det_boxes, gt_boxes, gt_crowd, IOU_THRESHOLDS[0])


def _mask_edges(
    problem: Problem,
    det_rows: np.ndarray,
    gt_rows: np.ndarray,
    det_pair: np.ndarray,
    gt_pair: np.ndarray,
    gt_crowd: np.ndarray,
) -> Edges:
    gt, table, masks = problem.gt, problem.table, problem.table.masks
    if masks is None:
        raise DataError("the detections hold no masks: score their boxes, or give results with segmentations")

    def det_rle(position: int) -> dict[str, object]:
        row = det_rows[position]
        return as_rle(masks[row], gt.image_sizes[table.image_index[row]])

    def gt_rle(position: int) -> dict[str, object]:
        row = int(gt_rows[position])
        return as_rle(gt.counts(row), gt.image_sizes[gt.ann_image[row]])

    return mask_edges(det_pair, gt_pair, det_rle, gt_rle, gt_crowd, IOU_THRESHOLDS[0])


def _is_marked(gt: GroundTruth, gt_rows: np.ndarray) -> np.ndarray:
    """``[G]`` bool: whether the official packages notice a match, which they note by the annotation's id."""
    marked = gt.ann_ids[gt_rows] != 0
    if not marked.all():
        log.warning(
            "the ground truth has an annotation with id 0: the official scorers, and so aegl, count what matches it as "
            "unmatched; number annotations from 1"
        )
    return np.asarray(marked)


def _verdicts(match: np.ndarray, gt_ignore: np.ndarray, marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[A, T, D]`` bool twice: matched, and matched to ground truth that is ignored."""
    matched = match >= 0
    ignored = np.zeros_like(matched)
    area, threshold, det = np.nonzero(matched)
    found = match[area, threshold, det]
    ignored[area, threshold, det] = gt_ignore[area, found]
    matched[area, threshold, det] = marked[found]
    return matched, ignored


def _count_gt(labels: np.ndarray, gt_ignore: np.ndarray, num_classes: int) -> np.ndarray:
    """``[C, A]`` int64: ground truth to be found."""
    return np.stack([np.bincount(labels[~ignore], minlength=num_classes) for ignore in gt_ignore], axis=1)
