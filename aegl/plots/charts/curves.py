"""Precision against recall, by frequency band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from aegl.plots.charts.canvas import TITLED, figure_of, hex_colors, panels, styled
from aegl.plots.colors import band_label

_LOWEST_TOP = 0.1
"""Precision up to which is shown at least; the curves of a poor detector would lie on the axis if it were 1."""


@styled
def precision_recall(
    recall: np.ndarray, precision: np.ndarray, *, class_band: np.ndarray, band_names: Sequence[str], title: str
) -> Figure:
    """The mean curve of the classes of each band, and of all.

    Args:
        recall: ``[R]`` in [0, 1].
        precision: ``[C, R]`` in [0, 1], NaN for classes with nothing to be found.
        class_band: ``[C]`` index of each class into ``band_names``.
        band_names: rarest first.
        title: what it is the precision of.
    """
    (axes,) = panels()
    known = ~np.isnan(precision).any(axis=1)
    highest = 0.0
    for band, color in enumerate(hex_colors(len(band_names))):
        inside = known & (np.asarray(class_band) == band)
        if inside.any():
            mean = precision[inside].mean(axis=0)
            highest = max(highest, float(mean.max()))
            axes.plot(recall, mean, color=color, label=f"{band_label(band_names[band])}: {100 * mean.mean():.1f}")
    if known.any():
        mean = precision[known].mean(axis=0)
        axes.plot(recall, mean, color="black", linestyle="--", label=f"all: {100 * mean.mean():.1f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1))
    axes.set_ylim(0, min(1.0, max(1.1 * highest, _LOWEST_TOP)))
    axes.set_title(title, loc="left")
    axes.legend(title="AP, percent", **TITLED)
    return figure_of(axes)
