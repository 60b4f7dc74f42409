"""What an evaluation gives: the figures, and the curves behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aegl.errors import DataError
from aegl.metrics.bands import band_ap, mean_valid
from aegl.metrics.scoring import IOU_THRESHOLDS, Curves

_SIZES = {"s": 1, "m": 2, "l": 3}


@dataclass(frozen=True)
class EvalResult:
    """Scores of one kind (boxes or masks) under one protocol.

    Args:
        protocol: ``lvis`` or ``coco``.
        iou_type: ``bbox`` or ``segm``.
        summary: figures in [0, 1], None where nothing is there to be found: ``AP AP50 AP75 APs APm APl``, ``AP<band>``
            for each band, ``AR ARs ARm ARl`` with the largest number of detections, ``AR<n>`` with ``n`` of them.
        per_class: ``[C]`` float64 AP of every class, NaN for classes without ground truth.
        precision: ``[T, R, C, A]`` float64 (10 thresholds, 101 recall points, classes, sizes all/s/m/l); -1: undefined.
        recall: ``[T, C, A, M]`` float64; -1: undefined.
        max_dets: the ``M`` numbers of detections that recall was computed with.
    """

    protocol: str
    iou_type: str
    summary: dict[str, float | None]
    per_class: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    max_dets: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values for JSON; None stands for NaN."""
        per_class = [None if np.isnan(ap) else float(ap) for ap in self.per_class]
        return {
            "protocol": self.protocol,
            "iou_type": self.iou_type,
            "max_det": self.max_dets[-1],
            "summary": self.summary,
            "per_class": per_class,
        }


def summarize(
    curves: Curves, *, protocol: str, iou_type: str, class_band: np.ndarray, band_names: Sequence[str]
) -> EvalResult:
    """All figures of :class:`EvalResult` from the curves.

    Raises:
        DataError: if the bands do not fit the classes, or a band's name hides another figure.
    """
    precision, recall = curves.precision, curves.recall
    summary: dict[str, float | None] = {"AP": mean_valid(precision[..., 0])}
    for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
        summary[name] = mean_valid(precision[np.argmin(np.abs(IOU_THRESHOLDS - threshold)), :, :, 0])
    summary |= {f"AP{size}": mean_valid(precision[..., area]) for size, area in _SIZES.items()}
    bands = band_ap(precision, class_band, band_names)
    hidden = [name for name in bands if name in summary]
    if hidden:
        raise DataError(f"a frequency band gives the figure {hidden[0]}, which has a meaning already: rename the band")
    summary |= bands
    summary["AR"] = mean_valid(recall[:, :, 0, -1])
    summary |= {f"AR{n}": mean_valid(recall[:, :, 0, m]) for m, n in enumerate(curves.max_dets[:-1])}
    summary |= {f"AR{size}": mean_valid(recall[:, :, area, -1]) for size, area in _SIZES.items()}
    return EvalResult(protocol, iou_type, summary, _per_class(precision), precision, recall, curves.max_dets)


def _per_class(precision: np.ndarray) -> np.ndarray:
    ap = precision[..., 0].mean(axis=(0, 1))
    return np.where(precision[0, 0, :, 0] > -1, ap, np.nan)
