"""The one entry point of scoring: ground truth and detections in, figures out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from aegl.errors import ConfigError
from aegl.metrics import coco, lvis
from aegl.metrics.detections import DetectionTable
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.result import EvalResult, summarize

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore

PROTOCOLS = {"lvis": lvis.score_lvis, "coco": coco.score_coco}
MAX_DET = {"lvis": lvis.MAX_DET, "coco": coco.MAX_DET}
IOU_TYPES = ("bbox", "segm")


def evaluate(
    store: AnnotationStore | GroundTruth,
    table: DetectionTable,
    *,
    protocol: str,
    iou_type: str,
    class_band: np.ndarray,
    band_names: Sequence[str],
    max_det: int | None = None,
) -> EvalResult:
    """Score detections against ground truth; figures equal the official package's.

    Args:
        store: ground truth of the split, or the view of it that earlier calls used.
        table: detections; ``image_index`` and ``label`` are rows of ``store``.
        protocol: ``lvis`` (lvis-api 0.5.3) or ``coco`` (pycocotools 2).
        iou_type: ``bbox`` or ``segm``.
        class_band: ``[C]`` integers, each class's index into ``band_names``.
        band_names: names of the frequency bands, rarest first.
        max_det: detections that count, per image for LVIS (default 300), per image and class for COCO (default 100).

    Raises:
        ConfigError: for an unknown protocol or IoU type, or ``max_det`` below 1.
        DataError: if masks are missing, or the bands do not fit the classes.
    """
    for name, value, allowed in (("protocol", protocol, tuple(PROTOCOLS)), ("iou_type", iou_type, IOU_TYPES)):
        if value not in allowed:
            raise ConfigError(f"{name}={value}: must be one of {', '.join(allowed)}")
    limit = MAX_DET[protocol] if max_det is None else max_det
    if limit < 1:
        raise ConfigError(f"max_det={limit}: must be 1 or more")
    gt = store if isinstance(store, GroundTruth) else GroundTruth.from_store(store)
    curves = PROTOCOLS[protocol](gt, table, iou_type, limit)
    return summarize(curves, protocol=protocol, iou_type=iou_type, class_band=class_band, band_names=band_names)
