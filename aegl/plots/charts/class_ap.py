"""AP of every class, a panel for each frequency band (Figure 5 of the FBS-AEGL paper), and against its instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from aegl.plots.charts.canvas import (
    TITLED,
    figure_of,
    line_style,
    note,
    panels,
    plain_logarithmic,
    styled,
    whole_numbers,
)
from aegl.plots.colors import band_label

Order = Literal["each", "baseline", "count"]
_ORDERED: dict[Order, str] = {
    "each": "class, from each run's best",
    "baseline": "class, from the best of {baseline}",
    "count": "class, from the most frequent",
}


@styled
def ap_by_class(
    series: Mapping[str, np.ndarray],
    *,
    class_band: np.ndarray,
    band_names: Sequence[str],
    kind: str = "box",
    instances: np.ndarray | None = None,
    order: Order = "each",
) -> Figure:
    """One curve for each run; classes without ground truth are left out.

    Args:
        series: ``[C]`` AP in [0, 1] by the run's name, NaN where there is nothing to be found.
        class_band: ``[C]`` index of each class into ``band_names``.
        band_names: rarest first; shown the other way round, as in the paper.
        kind: of AP: ``box`` or ``mask``.
        instances: ``[C]`` training instances, needed for ``order="count"``.
        order: ``each``: every curve falls by its own AP; ``baseline``: by the first run's; ``count``: by instances.

    Raises:
        ValueError: for ``order="count"`` without ``instances``.
    """
    if order == "count" and instances is None:
        raise ValueError("order=count needs the training instances of the classes")
    baseline, first = next(iter(series.items()))
    axes = panels(len(band_names), width=3.2 * len(band_names), share_y=True)
    for panel, band in zip(axes, reversed(range(len(band_names))), strict=True):
        inside = (np.asarray(class_band) == band) & ~np.isnan(first)
        for number, (name, ap) in enumerate(series.items()):
            values = np.asarray(ap)[inside]
            key = {"each": values, "baseline": first[inside]}.get(order)
            key = np.asarray(instances)[inside] if key is None else key
            mean = f"{100 * np.nanmean(values):.1f}" if len(values) else "-"
            shown = 100 * values[np.argsort(-key, kind="stable")]
            panel.plot(np.arange(1, len(shown) + 1), shown, label=f"{name}: {mean}", **line_style(number))
        panel.set_title(f"{band_label(band_names[band])}, {int(inside.sum())} classes", loc="left")
        panel.set_xlabel(_ORDERED[order].format(baseline=baseline))
        whole_numbers(panel)
        panel.legend(title="mean AP", **TITLED)
    axes[0].set_ylabel(f"{kind} AP, percent")
    axes[0].set_ylim(bottom=0)
    return figure_of(axes[0])


@styled
def ap_by_count(series: Mapping[str, np.ndarray], instances: np.ndarray, *, kind: str = "box") -> Figure:
    """AP of every class against its training instances, and the mean of classes with about as many.

    Args:
        series: ``[C]`` AP in [0, 1] by the run's name, NaN where there is nothing to be found.
        instances: ``[C]`` training instances.
        kind: of AP: ``box`` or ``mask``.
    """
    (axes,) = panels()
    counts = np.asarray(instances)
    edges = 2.0 ** np.arange(0, np.ceil(np.log2(max(counts.max(initial=1), 2))) + 1)
    for number, (name, ap) in enumerate(series.items()):
        known = ~np.isnan(ap) & (counts > 0)
        style = line_style(number)
        axes.scatter(counts[known], 100 * ap[known], s=8, alpha=0.35, color=style["color"], linewidths=0)
        place = np.digitize(counts[known], edges)
        centers = [np.exp(np.log(counts[known][place == bin_]).mean()) for bin_ in np.unique(place)]
        means = [100 * ap[known][place == bin_].mean() for bin_ in np.unique(place)]
        axes.plot(centers, means, label=name, marker="o", markersize=3, **style)
    plain_logarithmic(axes, "x")
    axes.set(xlabel="training instances of the class", ylabel=f"{kind} AP, percent")
    note(axes, "dots: classes; lines: mean of the classes with about as many instances")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure_of(axes)
