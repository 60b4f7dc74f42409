"""Where the negative gradient of every class comes from (Figure 1 of the FBS-AEGL paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from aegl.plots.charts.canvas import figure_of, line_style, panels, styled

Measure = Literal["share", "fg_over_bg"]


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
    """One curve for each run over the classes, from the most to the least frequent; classes without gradient are gaps.

    Args:
        series: by the run's name.
        measure: ``share``, ``100 F / (F + B)`` percent, or ``fg_over_bg``, ``F / B``.
    """
    (axes,) = panels()
    for number, (name, gradient) in enumerate(series.items()):
        order = np.argsort(-np.asarray(gradient.instances), kind="stable")
        axes.plot(np.arange(1, len(order) + 1), _measured(gradient, measure)[order], label=name, **line_style(number))
    axes.set_xlabel("class, from the most frequent")
    axes.set_ylabel("from foreground, percent" if measure == "share" else "foreground over background")
    axes.set_title("negative gradient of each class", loc="left")
    axes.set_xlim(left=1)
    if measure == "share":
        axes.set_ylim(0, 100)
    axes.legend()
    return figure_of(axes)


def _measured(gradient: NegativeGradient, measure: Measure) -> np.ndarray:
    foreground, background = (np.asarray(sums, dtype=np.float64) for sums in gradient[1:])
    whole = foreground + background if measure == "share" else background
    value = np.divide(foreground, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return 100 * value if measure == "share" else value
