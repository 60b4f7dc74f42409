"""What repeat-factor sampling does to every class."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from aegl.plots.charts.canvas import SERIES, figure_of, panels, styled


@styled
def repeat_factors(images: np.ndarray, factors: np.ndarray, *, threshold: float) -> Figure:
    """Repeat factor of every class against the number of its images.

    Args:
        images: ``[C]`` training images of each class.
        factors: ``[C]`` repeat factors, at least 1 where the class occurs.
        threshold: share of images below which a class is repeated, for the title.
    """
    (axes,) = panels()
    there = np.asarray(images) > 0
    repeated = int((np.asarray(factors)[there] > 1).sum())
    axes.scatter(images[there], factors[there], s=9, alpha=0.6, color=SERIES[0], linewidths=0)
    axes.set(xscale="log", xlabel="training images of the class", ylabel="repeat factor")
    axes.set_title(f"threshold {threshold:g}: {repeated} of {int(there.sum())} classes are repeated", loc="left")
    axes.set_ylim(bottom=0.9)
    return figure_of(axes)
