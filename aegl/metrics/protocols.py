"""The scoring rules that aegl knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aegl.metrics import coco, fixed, lvis, pooled
from aegl.metrics.detections import DetectionTable
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.scoring import Curves
from aegl.progress import Progress


@dataclass(frozen=True)
class Protocol:
    """One set of rules.

    Args:
        score: ground truth, detections, IoU type, ``max_det`` and whom to tell of progress, to curves.
        max_det: number of detections that count unless another is asked for.
        per: what ``max_det`` is counted in: every ``image``, ``image and class``, or ``class``.
    """

    score: Callable[[GroundTruth, DetectionTable, str, int, Progress | None], Curves]
    max_det: int
    per: str

    def limit_of_model(self, max_det: int) -> int | None:
        """A model's detections per image, where the rules count per image too; None leaves the rules' own number."""
        return max_det if self.per == "image" else None


PROTOCOLS = {
    "lvis": Protocol(lvis.score_lvis, lvis.MAX_DET, "image"),
    "coco": Protocol(coco.score_coco, coco.MAX_DET, "image and class"),
    "lvis_fixed": Protocol(fixed.score_fixed, fixed.MAX_DET, "class"),
    "lvis_pooled": Protocol(pooled.score_pooled, fixed.MAX_DET, "class"),
}
"""Protocols by name."""
