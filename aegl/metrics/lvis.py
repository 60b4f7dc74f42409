"""The LVIS protocol (Gupta, Dollar, Girshick: LVIS, 2019): federated ground truth, 300 detections an image."""

from __future__ import annotations

import numpy as np

from aegl.metrics.detections import DetectionTable
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.scoring import Curves, Problem, score
from aegl.progress import Progress

MAX_DET = 300
"""Detections per image over all classes."""


def score_lvis(
    gt: GroundTruth, table: DetectionTable, iou_type: str, max_det: int = MAX_DET, progress: Progress | None = None
) -> Curves:
    """Precision and recall under the LVIS rules.

    Of each image the ``max_det`` best detections over all classes are looked at. Of these a detection counts only where
    its class is known to be present or known to be absent; where the class is not annotated exhaustively, unmatched
    ones are ignored. Ground truth that is not federated is taken as exhaustive for every class in every image. There
    are no crowds; ``ignore`` flags are honoured.
    """
    return score(lvis_problem(gt, table, table.top_rows(max_det), max_det), iou_type, progress)


def lvis_problem(gt: GroundTruth, table: DetectionTable, rows: np.ndarray, max_det: int) -> Problem:
    """What the federated rules leave to score of the detections ``rows``, of ``max_det`` per image and class."""
    key = table.image_index[rows].astype(np.int64) * gt.num_classes + table.label[rows]
    if gt.federated:
        positive = gt.ann_image * gt.num_classes + gt.ann_labels
        counts = np.isin(key, positive) | np.isin(key, gt.negative)
        rows, key = rows[counts], key[counts]
    return Problem(
        gt=gt,
        table=table,
        rows=rows,
        gt_ignore=gt.ann_ignore,
        gt_crowd=np.zeros(len(gt.ann_ids), dtype=bool),
        lenient=np.isin(key, gt.not_exhaustive),
        max_dets=(max_det,),
    )
