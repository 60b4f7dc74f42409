"""Which classes are most often taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from aegl.plots.charts.canvas import SERIES, figure_of, panels, shortened, styled, whole_numbers

_SHOWN = 25


@styled
def top_confusions(pairs: Sequence[tuple[str, str, int]], *, title: str = "") -> Figure:
    """Bars of the most frequent confusions; a matrix of 1203 x 1203 classes could not be read.

    Args:
        pairs: class, what it is taken for, and how often; most frequent first.
        title: whose confusions they are.
    """
    shown = list(pairs)[:_SHOWN]
    (axes,) = panels(height=max(2.0, 0.24 * len(shown) + 0.8))
    place = np.arange(len(shown))
    axes.barh(place, [count for _, _, count in shown], color=SERIES[0], height=0.7)
    true, taken_for = shortened([pair[0] for pair in shown]), shortened([pair[1] for pair in shown])
    labels = [f"{own} → {other}" for own, other in zip(true, taken_for, strict=True)]
    axes.set_yticks(place, labels)
    axes.set_ylim(len(shown) - 0.5, -0.5)  # the most frequent on top
    whole_numbers(axes)
    axes.set_title(title, loc="left")
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="objects taken for the other class")
    return figure_of(axes)
