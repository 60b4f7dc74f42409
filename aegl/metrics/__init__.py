"""Scoring of detections under the LVIS and the COCO protocol, equal to the official packages and much faster."""

from aegl.metrics.detections import DetectionTable, DetectionTableBuilder
from aegl.metrics.evaluate import evaluate
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.protocols import PROTOCOLS
from aegl.metrics.report import metrics_json, summary_json
from aegl.metrics.result import EvalResult

__all__ = [
    "PROTOCOLS",
    "DetectionTable",
    "DetectionTableBuilder",
    "EvalResult",
    "GroundTruth",
    "evaluate",
    "metrics_json",
    "summary_json",
]
