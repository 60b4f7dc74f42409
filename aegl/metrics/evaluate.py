"""The one entry point of scoring: ground truth and detections in, figures out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from aegl.errors import ConfigError
from aegl.metrics.detections import DetectionTable
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.protocols import PROTOCOLS
from aegl.metrics.result import EvalResult, summarize

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.progress import Progress

IOU_TYPES = ("bbox", "segm", "boundary")


def evaluate(
    store: AnnotationStore | GroundTruth,
    table: DetectionTable,
    *,
    protocol: str,
    iou_type: str,
    class_band: np.ndarray,
    band_names: Sequence[str],
    max_det: int | None = None,
    progress: Progress | None = None,
) -> EvalResult:
    """Score detections against ground truth; figures equal the official package's.

    Args:
        store: ground truth of the split, or the view of it that earlier calls used.
        table: detections; ``image_index`` and ``label`` are rows of ``store``.
        protocol: ``lvis`` (lvis-api 0.5.3), ``coco`` (pycocotools 2), ``lvis_fixed`` or ``lvis_pooled``.
        iou_type: ``bbox``, ``segm`` or ``boundary`` (of masks).
        class_band: ``[C]`` integers, each class's index into ``band_names``.
        band_names: names of the frequency bands, rarest first.
        max_det: detections that count, in each image, class or both (:attr:`Protocol.per`); default: the protocol's.
        progress: told of the classes that are done.

    Raises:
        ConfigError: for an unknown protocol or IoU type, or ``max_det`` below 1.
        DataError: if masks are missing, or the bands do not fit the classes.
    """
    for name, value, allowed in (("protocol", protocol, tuple(PROTOCOLS)), ("iou_type", iou_type, IOU_TYPES)):
        if value not in allowed:
            raise ConfigError(f"{name}={value}: must be one of {', '.join(allowed)}")
    limit = PROTOCOLS[protocol].max_det if max_det is None else max_det
    if limit < 1:
        raise ConfigError(f"max_det={limit}: must be 1 or more")
    gt = store if isinstance(store, GroundTruth) else GroundTruth.from_store(store)
    curves = PROTOCOLS[protocol].score(gt, table, iou_type, limit, progress)
    return summarize(curves, protocol=protocol, iou_type=iou_type, class_band=class_band, band_names=band_names)
