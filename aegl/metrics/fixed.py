"""LVIS fixed AP (Dave et al., Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details, 2021)."""

from __future__ import annotations

import numpy as np

from aegl.metrics.detections import DetectionTable
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.lvis import lvis_problem
from aegl.metrics.scoring import Curves, score
from aegl.progress import Progress

MAX_DET = 10_000
"""Detections per class over the whole split."""


def score_fixed(
    gt: GroundTruth, table: DetectionTable, iou_type: str, max_det: int = MAX_DET, progress: Progress | None = None
) -> Curves:
    """Precision and recall under the LVIS rules without their limit per image.

    Of each class the ``max_det`` best detections over all images are looked at, however many of them lie in one image:
    a class does not win by pushing another one's detections out of an image. The limit comes before the federated
    rules, as in the paper's code.
    """
    return score(lvis_problem(gt, table, top_rows_of_classes(table, max_det), max_det), iou_type, progress)


def top_rows_of_classes(table: DetectionTable, max_det: int) -> np.ndarray:
    """Rows of the ``max_det`` best detections of every class over all images, in the table's order (int64).

    Among equal scores the earlier ones stay.
    """
    order = np.lexsort((-table.score, table.label))
    label = table.label[order]
    rank = np.arange(len(order)) - np.searchsorted(label, label, side="left")
    return np.sort(order[rank < max_det])
