"""Figures, over all classes and per frequency band, for any data set that knows each class's band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aegl.errors import DataError
from aegl.metrics.scoring import IOU_THRESHOLDS, Curves

Figures = dict[str, float | None]
"""Figures by name, in [0, 1]; None where nothing is there to be found."""


def mean_valid(values: np.ndarray) -> float | None:
    """Mean of the entries above -1, None where there is none: how the official packages average."""
    valid = values[values > -1]
    return float(np.mean(valid)) if len(valid) else None


def at_threshold(threshold: float) -> int:
    """Position of an IoU threshold among :data:`IOU_THRESHOLDS`."""
    return int(np.argmin(np.abs(IOU_THRESHOLDS - threshold)))


def band_figures(curves: Curves, class_band: np.ndarray, band_names: Sequence[str]) -> dict[str, Figures]:
    """``AP``, ``AP50`` and ``AR`` of every band over all sizes.

    Args:
        curves: of all classes.
        class_band: ``[C]`` integers, each class's index into ``band_names``.
        band_names: names of the bands, rarest first.

    Raises:
        DataError: if ``class_band`` does not fit the classes or the names.
    """
    class_band = np.asarray(class_band)
    num_classes = curves.precision.shape[2]
    if class_band.shape != (num_classes,):
        raise DataError(f"frequency bands are given for {class_band.size} classes, the ground truth has {num_classes}")
    if num_classes and not 0 <= class_band.min() <= class_band.max() < len(band_names):
        raise DataError(f"a class has band {class_band.max()}, but the bands are {', '.join(band_names)}")
    return {name: _figures(curves.over(class_band == band)) for band, name in enumerate(band_names)}


def _figures(curves: Curves) -> Figures:
    return {
        "AP": mean_valid(curves.precision[..., 0]),
        "AP50": mean_valid(curves.precision[at_threshold(0.5), ..., 0]),
        "AR": mean_valid(curves.recall[:, :, 0, -1]),
    }
