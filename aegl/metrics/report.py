"""The JSON that `aegl val` prints and the content of a run's ``metrics.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aegl.metrics.result import EvalResult

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore


def summary_json(
    *, protocol: str, split: str, band_names: Sequence[str], box: EvalResult | None, mask: EvalResult | None
) -> dict[str, Any]:
    """``{"protocol", "split", "bands", "box": {figures}, "mask": {figures}}``, figures in [0, 1] or None.

    ``box`` or ``mask`` is None where it was not scored.
    """
    return {
        "protocol": protocol,
        "split": split,
        "bands": list(band_names),
        "box": None if box is None else dict(box.summary),
        "mask": None if mask is None else dict(mask.summary),
    }


def metrics_json(
    store: AnnotationStore,
    *,
    protocol: str,
    split: str,
    band_names: Sequence[str],
    box: EvalResult | None,
    mask: EvalResult | None,
    num_detections: int,
    max_det: int,
) -> dict[str, Any]:
    """:func:`summary_json` and what it takes to tell whether two evaluations may be compared."""
    return {
        **summary_json(protocol=protocol, split=split, band_names=band_names, box=box, mask=mask),
        "counts": {
            "classes": len(store.categories.ids),
            "images": len(store.image_ids),
            "annotations": len(store.ann_ids),
            "detections": num_detections,
        },
        "ground_truth_hash": store.content_hash,
        "max_det": max_det,
    }
