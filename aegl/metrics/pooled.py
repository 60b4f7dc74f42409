"""LVIS pooled AP (Dave et al., Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details, 2021)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from aegl.metrics.detections import DetectionTable
from aegl.metrics.fixed import MAX_DET, top_rows_of_classes
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.lvis import lvis_problem
from aegl.metrics.scoring import Curves, Verdicts, judge
from aegl.progress import Progress


@dataclass(frozen=True)
class PooledCurves(Curves):
    """Curves of every class, and what it takes to draw one for several classes together.

    Args:
        verdicts: what became of the detections.
    """

    verdicts: Verdicts

    def over(self, classes: np.ndarray) -> Curves:
        """One curve for all detections and objects of these classes (``[C]`` bool), as if they were one class."""
        verdicts = self.verdicts
        rows = np.flatnonzero(classes[verdicts.label])
        # Among equal scores the paper's code goes by image first.
        rows = rows[np.lexsort((verdicts.rank[rows], verdicts.label[rows], verdicts.image[rows]))]
        return replace(
            verdicts,
            label=np.zeros(len(rows), dtype=np.int64),
            image=verdicts.image[rows],
            score=verdicts.score[rows],
            rank=verdicts.rank[rows],
            matched=verdicts.matched[:, :, rows],
            ignored=verdicts.ignored[:, :, rows],
            num_gt=verdicts.num_gt[classes].sum(axis=0, keepdims=True),
        ).curves()


def score_pooled(
    gt: GroundTruth, table: DetectionTable, iou_type: str, max_det: int = MAX_DET, progress: Progress | None = None
) -> PooledCurves:
    """Precision and recall of one ranking over all classes.

    Detections are limited and matched as in fixed AP, class by class; then those of all classes are ranked together by
    score. Unlike a mean over classes, that rewards scores that mean the same in every class. Each object counts the
    same, so frequent classes weigh more. A band's figure is that of one ranking over the classes of the band; figures
    per class are those of fixed AP.
    """
    verdicts = judge(lvis_problem(gt, table, top_rows_of_classes(table, max_det), max_det), iou_type, progress)
    return PooledCurves(**vars(verdicts.curves()), verdicts=verdicts)
