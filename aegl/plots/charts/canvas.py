"""What all charts share: size, type, colours, and how they are written to files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator

from aegl.plots.colors import band_colors

SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of runs or data sets, the first one first: Okabe and Ito's palette, told apart with every colour vision."""
DASHES = ("-", "--", "-.", ":")
"""Styles of lines, for those who print in grey."""

_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",  # text stays text: it can be read, searched and scaled
    "svg.hashsalt": "aegl",  # the same figure is the same file
    "lines.linewidth": 1.4,
}
TITLED: dict[str, Any] = {"title_fontsize": 8, "alignment": "left"}
"""Style of a legend that has a title."""
_DPI = 150
P = ParamSpec("P")


def styled(chart: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorates a chart: it is drawn in the style that all share."""

    @wraps(chart)
    def draws(*args: P.args, **given: P.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            return chart(*args, **given)

    return draws


def panels(number: int = 1, *, width: float = 6.4, height: float = 3.6, share_y: bool = False) -> list[Axes]:
    """Axes beside each other on a new figure.

    Args:
        number: of axes.
        width: of the figure in inches.
        height: of the figure in inches.
        share_y: whether they have one scale.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return list(figure.subplots(1, number, squeeze=False, sharey=share_y)[0])


def figure_of(axes: Axes) -> Figure:
    """The figure that axes are on."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


def line_style(number: int) -> dict[str, Any]:
    """Colour and dash of the line of a series, by its number."""
    return {"color": SERIES[number % len(SERIES)], "linestyle": DASHES[number // len(SERIES) % len(DASHES)]}


def plain_logarithmic(axes: Axes, *names: Literal["x", "y"]) -> None:
    """Make axes logarithmic, with numbers written out (1,000 and not 10³): they are counts, which people read."""
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis: Axis = getattr(axes, f"{name}axis")
        axis.set_major_formatter(_WrittenOut())
        axis.set_minor_formatter(_WrittenOut())


def note(axes: Axes, text: str) -> None:
    """Write above axes how to read them."""
    axes.set_title(text, loc="left", fontsize=8, fontweight="normal")


def whole_numbers(axes: Axes) -> None:
    """Let the ticks of the horizontal axis stand at whole numbers only: there is no class 2.5."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))


class _WrittenOut(LogFormatterSciNotation):
    """Labels the ticks that matplotlib would, but without powers."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:,.12g}" if super().__call__(x, pos) else ""


def hex_colors(num_bands: int) -> list[str]:
    """The colours of the frequency bands, rarest first, as matplotlib takes them."""
    return ["#{:02x}{:02x}{:02x}".format(*color) for color in band_colors(num_bands)]


def write(figure: Figure, path: Path) -> list[Path]:
    """Save a figure as ``<path>.png`` and ``<path>.svg``; returns both paths."""
    written = []
    with mpl.rc_context(_STYLE):
        for suffix, options in ((".png", {"dpi": _DPI}), (".svg", {"metadata": {"Date": None}})):
            file = path.with_name(path.name + suffix)
            figure.savefig(file, **options)
            written.append(file)
    return written


def svg(figure: Figure) -> str:
    """A figure as an SVG element, to be put into a page."""
    text = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def shortened(names: Sequence[str], length: int = 28) -> list[str]:
    """Names cut to a readable length."""
    return [name if len(name) <= length else f"{name[: length - 1]}…" for name in names]
