"""What an evaluation gives: the figures, and the curves behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aegl.errors import DataError
from aegl.metrics.bands import Figures, at_threshold, band_figures, mean_valid
from aegl.metrics.scoring import Curves

_SIZES = {"s": 1, "m": 2, "l": 3}


@dataclass(frozen=True)
class EvalResult:
    """Scores of one kind (boxes, masks or boundaries) under one protocol.

    Args:
        protocol: the rules, a key of :data:`aegl.metrics.PROTOCOLS`.
        iou_type: ``bbox``, ``segm`` or ``boundary``.
        summary: figures in [0, 1], None where nothing is there to be found: ``AP AP50 AP75 APs APm APl``, ``AP<band>``
            for each band, ``AR ARs ARm ARl`` with the largest number of detections, ``AR<n>`` with ``n`` of them.
        bands: ``AP``, ``AP50`` and ``AR`` of each band.
        per_class: ``[C]`` float64 AP of every class, NaN for classes without ground truth.
        precision: ``[T, R, C, A]`` float64 (10 thresholds, 101 recall points, classes, sizes all/s/m/l); -1: undefined.
        recall: ``[T, C, A, M]`` float64; -1: undefined.
        overall: ``[T, R]`` float64 precision over all classes, of which AP is the mean; NaN: undefined.
        max_dets: the ``M`` numbers of detections that recall was computed with.
        scores: ``[C, 2, B]`` int64 counts of false and true detections by score, at an IoU of 0.5.
    """

    protocol: str
    iou_type: str
    summary: Figures
    bands: dict[str, Figures]
    per_class: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    overall: np.ndarray
    max_dets: tuple[int, ...]
    scores: np.ndarray


def summarize(
    curves: Curves, *, protocol: str, iou_type: str, class_band: np.ndarray, band_names: Sequence[str]
) -> EvalResult:
    """All figures of :class:`EvalResult` from the curves.

    Raises:
        DataError: if the bands do not fit the classes, or a band's name hides another figure.
    """
    bands = band_figures(curves, class_band, band_names)
    every = curves.over(np.ones(len(class_band), dtype=bool))
    precision, recall = every.precision, every.recall
    summary: Figures = {"AP": mean_valid(precision[..., 0])}
    summary |= {f"AP{round(100 * t)}": mean_valid(precision[at_threshold(t), :, :, 0]) for t in (0.5, 0.75)}
    summary |= {f"AP{size}": mean_valid(precision[..., area]) for size, area in _SIZES.items()}
    hidden = [f"AP{name}" for name in bands if f"AP{name}" in summary]
    if hidden:
        raise DataError(f"a frequency band gives the figure {hidden[0]}, which has a meaning already: rename the band")
    summary |= {f"AP{name}": figures["AP"] for name, figures in bands.items()}
    summary["AR"] = mean_valid(recall[:, :, 0, -1])
    summary |= {f"AR{n}": mean_valid(recall[:, :, 0, m]) for m, n in enumerate(curves.max_dets[:-1])}
    summary |= {f"AR{size}": mean_valid(recall[:, :, area, -1]) for size, area in _SIZES.items()}
    return EvalResult(
        protocol,
        iou_type,
        summary,
        bands,
        _per_class(curves.precision),
        curves.precision,
        curves.recall,
        _mean_over_classes(precision[..., 0]),
        curves.max_dets,
        curves.scores,
    )


def _per_class(precision: np.ndarray) -> np.ndarray:
    ap = precision[..., 0].mean(axis=(0, 1))
    return np.where(precision[0, 0, :, 0] > -1, ap, np.nan)


def _mean_over_classes(precision: np.ndarray) -> np.ndarray:
    """``[T, R, C]`` to ``[T, R]``; NaN if no class has ground truth."""
    defined = precision[0, 0] > -1
    return precision[:, :, defined].mean(axis=2) if defined.any() else np.full(precision.shape[:2], np.nan)
