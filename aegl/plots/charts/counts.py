"""Training instances of every class: how long the tail is (Figure 4 of the FBS-AEGL paper)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from aegl.plots.charts.canvas import figure_of, line_style, panels, plain_logarithmic, styled


@styled
def class_counts(series: Mapping[str, np.ndarray]) -> Figure:
    """One curve for each data set, its classes from the most to the least frequent, on a logarithmic scale.

    Args:
        series: ``[C]`` instances of every class by the data set's name; classes without any are named in the legend.
    """
    (axes,) = panels()
    for number, (name, counts) in enumerate(series.items()):
        ordered = np.sort(np.asarray(counts))[::-1]
        there = ordered[ordered > 0]
        without = len(ordered) - len(there)
        label = f"{name}: {len(ordered)} classes, {ordered.sum():,} instances, {there.max(initial=0):,} to "
        label += f"{there.min() if len(there) else 0:,}" + (f", {without} without" if without else "")
        axes.plot(np.arange(1, len(there) + 1), there, label=label, **line_style(number))
    plain_logarithmic(axes, "y")
    axes.set(xlabel="class, from the most frequent", ylabel="training instances")
    axes.set_xlim(left=1)
    axes.legend()
    return figure_of(axes)
