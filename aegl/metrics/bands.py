"""Average precision per frequency band, for any data set that knows each class's band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aegl.errors import DataError


def mean_valid(values: np.ndarray) -> float | None:
    """Mean of the entries above -1, None where there is none: how the official packages average."""
    valid = values[values > -1]
    return float(np.mean(valid)) if len(valid) else None


def band_ap(precision: np.ndarray, class_band: np.ndarray, band_names: Sequence[str]) -> dict[str, float | None]:
    """AP of every band over all sizes, keyed ``AP<band>``.

    Args:
        precision: ``[T, R, C, A]``, size range 0 being all sizes, -1 for classes without ground truth.
        class_band: ``[C]`` integers, each class's index into ``band_names``.
        band_names: names of the bands, rarest first.

    Raises:
        DataError: if ``class_band`` does not fit the classes or the names.
    """
    class_band = np.asarray(class_band)
    num_classes = precision.shape[2]
    if class_band.shape != (num_classes,):
        raise DataError(f"frequency bands are given for {class_band.size} classes, the ground truth has {num_classes}")
    if num_classes and not 0 <= class_band.min() <= class_band.max() < len(band_names):
        raise DataError(f"a class has band {class_band.max()}, but the bands are {', '.join(band_names)}")
    return {f"AP{name}": mean_valid(precision[:, :, class_band == band, 0]) for band, name in enumerate(band_names)}
