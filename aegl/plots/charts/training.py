"""How training went: losses, learning rate, and AP at the evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from aegl.plots.charts.canvas import SERIES, figure_of, line_style, panels, plain_logarithmic, styled

_SMOOTH = 0.02
"""Share of a run over which its curves are averaged."""

Columns = Mapping[str, Sequence[float | None]]
"""Columns of ``results.csv``; None where a cell is empty."""


@styled
def losses(series: Mapping[str, Columns]) -> Figure:
    """The sum of the loss terms of each run against its steps, smoothed, over the unsmoothed one.

    Args:
        series: by the run's name.
    """
    (axes,) = panels()
    for number, (name, columns) in enumerate(series.items()):
        step, loss = _pairs(columns, "loss")
        style = line_style(number)
        axes.plot(step, loss, color=style["color"], alpha=0.25, linewidth=0.8)
        axes.plot(step, _smooth(loss), label=name, **style)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    return figure_of(axes)


@styled
def loss_terms(columns: Columns, terms: Sequence[str]) -> Figure:
    """The terms of the loss of one run, smoothed, and its learning rate.

    Args:
        columns: of the run.
        terms: names of the columns that are terms.
    """
    left, right = panels(2, width=8.4)
    for number, term in enumerate(terms):
        step, value = _pairs(columns, term)
        left.plot(step, _smooth(value), label=term, **line_style(number))
    plain_logarithmic(left, "y")
    left.set(xlabel="step", ylabel="loss")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)  # above: curves start and end anywhere
    right.plot(*_pairs(columns, "lr"), color=SERIES[0])
    right.set(xlabel="step", ylabel="learning rate")
    return figure_of(left)


@styled
def evaluations(series: Mapping[str, Columns], figures: Sequence[str]) -> Figure:
    """Figures at the evaluations of each run, a panel for each figure.

    Args:
        series: by the run's name.
        figures: columns to show, e.g. ``mask/AP``, ``mask/APr``.
    """
    axes = panels(len(figures), width=2.6 * len(figures) + 1, share_y=True)
    for panel, figure in zip(axes, figures, strict=True):
        for number, (name, columns) in enumerate(series.items()):
            step, value = _pairs(columns, figure)
            panel.plot(step, 100 * value, label=name, marker="o", markersize=3, **line_style(number))
        panel.set_title(figure.replace("/", " "), loc="left")
        panel.set_xlabel("step")
        panel.set_xlim(left=0)
    axes[0].set_ylim(bottom=0)  # of all, and after all: it ends the search for a scale that holds what is drawn
    axes[0].set_ylabel("percent")
    axes[0].legend()
    return figure_of(axes[0])


def _pairs(columns: Columns, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows that have the value."""
    rows = [(s, v) for s, v in zip(columns["iteration"], columns.get(name, ()), strict=False) if v is not None]
    steps, values = zip(*rows, strict=True) if rows else ((), ())
    return np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a window around each value, smaller at the ends."""
    reach = max(1, round(_SMOOTH * len(values)))
    total = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - reach, 0)
    high = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return (total[high] - total[low]) / (high - low)
