"""The JSON that `aegl val` prints and the content of a run's ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.metrics.protocols import PROTOCOLS
from aegl.metrics.result import EvalResult

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore

KINDS = {"box": "bbox", "mask": "segm", "boundary": "boundary"}
"""Kinds of figures and the IoU type each is scored by."""


def summary_json(
    results: Mapping[str, EvalResult], *, split: str, class_band: np.ndarray, band_names: Sequence[str]
) -> dict[str, Any]:
    """Figures, and what they are figures of.

    Args:
        results: by kind: ``box``, and ``mask`` and ``boundary`` where they were scored.
        split: name of the split.
        class_band: ``[C]`` integers, each class's index into ``band_names``.
        band_names: names of the frequency bands, rarest first.

    Returns:
        ``{"protocol", "split", "bands", "max_det", "max_det_per", "box": {figures}, "mask": {figures} or None,
        "per_band": {band: {"classes", "box": {figures}, ...}}}`` and ``"boundary"`` where it was scored; figures are in
        [0, 1] or None.
    """
    box = results["box"]
    figures = {kind: dict(result.summary) for kind, result in results.items()}
    classes = np.bincount(class_band, minlength=len(band_names))
    return {
        "protocol": box.protocol,
        "split": split,
        "bands": list(band_names),
        "max_det": box.max_dets[-1],
        "max_det_per": PROTOCOLS[box.protocol].per,
        **({"box": None, "mask": None} | figures),
        "per_band": {
            name: {"classes": int(classes[band])} | {kind: dict(result.bands[name]) for kind, result in results.items()}
            for band, name in enumerate(band_names)
        },
    }


def metrics_json(store: AnnotationStore, summary: Mapping[str, Any], *, num_detections: int) -> dict[str, Any]:
    """:func:`summary_json` and what it takes to tell whether two evaluations may be compared."""
    return {
        **summary,
        "counts": {
            "classes": len(store.categories.ids),
            "images": len(store.image_ids),
            "annotations": len(store.ann_ids),
            "detections": num_detections,
        },
        "ground_truth_hash": store.content_hash,
    }
