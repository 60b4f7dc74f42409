"""The COCO protocol: exhaustive ground truth with crowds, detections bounded per image and class."""

from __future__ import annotations

import numpy as np

from aegl.metrics.detections import DetectionTable
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.scoring import Curves, Problem, score
from aegl.progress import Progress

MAX_DET = 100
"""Detections per image and class."""
RECALL_MAX_DETS = (1, 10)
"""Smaller numbers of detections at which recall is reported too (AR1, AR10)."""


def score_coco(
    gt: GroundTruth, table: DetectionTable, iou_type: str, max_det: int = MAX_DET, progress: Progress | None = None
) -> Curves:
    """Precision and recall under the COCO rules: every detection counts, crowds are ignored and never used up."""
    return score(
        Problem(
            gt=gt,
            table=table,
            rows=np.arange(len(table)),
            gt_ignore=gt.ann_crowd,
            gt_crowd=gt.ann_crowd,
            lenient=np.zeros(len(table), dtype=bool),
            max_dets=(*(m for m in RECALL_MAX_DETS if m < max_det), max_det),
        ),
        iou_type,
        progress,
    )
