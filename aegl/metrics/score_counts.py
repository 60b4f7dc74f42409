"""How many true and false detections of each class have which score: what histograms and calibration are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

SCORE_EDGES = np.linspace(0.0, 1.0, 51)
"""``[B + 1]`` float64 edges of the score bins; the last bin includes 1."""


def score_counts(label: np.ndarray, score: np.ndarray, matched: np.ndarray, num_classes: int) -> np.ndarray:
    """Count detections that are not ignored.

    Args:
        label: ``[D]`` int64 in ``0..C-1``.
        score: ``[D]`` float64 in [0, 1].
        matched: ``[D]`` bool: true positives.
        num_classes: C.

    Returns:
        ``[C, 2, B]`` int64: of every class, false (0) and true (1) positives by :data:`SCORE_EDGES`.
    """
    bins = len(SCORE_EDGES) - 1
    place = np.clip((score * bins).astype(np.int64), 0, bins - 1)
    flat = (label * 2 + matched) * bins + place
    return np.bincount(flat, minlength=num_classes * 2 * bins).reshape(num_classes, 2, bins)


def scores_by_band(counts: np.ndarray, class_band: np.ndarray, band_names: Sequence[str]) -> dict[str, Any]:
    """``[C, 2, B]`` counts summed over the classes of each band, as plain values.

    Returns:
        ``{"edges": [B + 1], "per_band": {band: {"true": [B], "false": [B]}}}``.
    """
    per_band = {}
    for band, name in enumerate(band_names):
        false, true = counts[np.asarray(class_band) == band].sum(axis=0)
        per_band[name] = {"true": true.tolist(), "false": false.tolist()}
    return {"edges": [round(edge, 4) for edge in SCORE_EDGES.tolist()], "per_band": per_band}
