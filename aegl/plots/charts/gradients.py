"""Where the negative gradient of every class comes from (Figure 1 of the FBS-AEGL paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from aegl.plots.charts.canvas import figure_of, line_style, note, panels, styled

Measure = Literal["share", "fg_over_bg"]
_REACH = 0.02
"""Share of all classes that count as neighbours, on either side."""


class NegativeGradient(NamedTuple):
    """Sums of ``|dL/dz|`` over training.

    Args:
        instances: ``[C]`` training instances of each class.
        foreground: ``[C]`` from foreground regions of other classes.
        background: ``[C]`` from background regions.
    """

    instances: np.ndarray
    foreground: np.ndarray
    background: np.ndarray


@styled
def foreground_share(series: Mapping[str, NegativeGradient], measure: Measure = "share") -> Figure:
    """A dot for each class, from the most to the least frequent, and a curve for each run: the mean of neighbours.

    Neighbours differ by tens of percent: 1203 classes joined by a line are a block of colour. A class without gradient
    has no dot, and counts in no mean.

    Args:
        series: by the run's name.
        measure: ``share``, ``100 F / (F + B)`` percent, or ``fg_over_bg``, ``F / B``.
    """
    (axes,) = panels()
    for number, (name, gradient) in enumerate(series.items()):
        order = np.argsort(-np.asarray(gradient.instances), kind="stable")
        place, value = np.arange(1, len(order) + 1), _measured(gradient, measure)[order]
        style = line_style(number)
        axes.scatter(place, value, s=6, alpha=0.3, color=style["color"], linewidths=0)
        axes.plot(place, _mean_of_neighbours(value), label=name, **style)
    axes.set_xlabel("class, from the most frequent")
    axes.set_ylabel("from foreground, percent" if measure == "share" else "foreground over background")
    note(axes, "negative gradient; dots: classes; lines: mean of neighbouring classes")
    axes.set_xlim(left=1)
    axes.set_ylim(0, 100 if measure == "share" else None)
    axes.legend()
    return figure_of(axes)


def _measured(gradient: NegativeGradient, measure: Measure) -> np.ndarray:
    foreground, background = (np.asarray(sums, dtype=np.float64) for sums in gradient[1:])
    whole = foreground + background if measure == "share" else background
    value = np.divide(foreground, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return 100 * value if measure == "share" else value


def _mean_of_neighbours(values: np.ndarray) -> np.ndarray:
    """Mean over a window around each value, of those that are known; NaN where none is."""
    window = np.ones(2 * round(_REACH * len(values)) + 1)
    known = ~np.isnan(values)
    total, number = (np.convolve(part, window, mode="full") for part in (np.where(known, values, 0.0), known))
    reach = len(window) // 2
    total, number = total[reach : reach + len(values)], number[reach : reach + len(values)]
    return np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0.5)
