"""What scores mean: how they are spread over true and false detections, and how often one of a score is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from aegl.plots.charts.canvas import figure_of, hex_colors, panels, plain_logarithmic, styled
from aegl.plots.colors import band_label

_FEWEST = 10
"""Detections of a bin below which their share is noise."""
_MERGED = 5
"""Bins of the counts that make one of the calibration."""

Counts = Mapping[str, Mapping[str, Sequence[int]]]
"""``{band: {"true": [B], "false": [B]}}``, rarest band first."""


@styled
def score_histograms(edges: Sequence[float], per_band: Counts, *, title: str = "") -> Figure:
    """Scores of true and of false detections (IoU 0.5), a panel for each band, on a logarithmic scale.

    Args:
        edges: ``[B + 1]`` edges of the bins.
        per_band: counts.
        title: whose scores they are.
    """
    axes = panels(len(per_band), width=3.2 * len(per_band), share_y=True)
    colors = hex_colors(len(per_band))
    for panel, color, (name, counts) in zip(axes, colors[::-1], list(per_band.items())[::-1], strict=True):
        true, false = np.asarray(counts["true"]), np.asarray(counts["false"])
        panel.stairs(false, edges, color="#777777", label=f"false: {false.sum():,}", linestyle="--")
        panel.stairs(true, edges, fill=True, alpha=0.5, color=color, label=f"true: {true.sum():,}")
        if (true + false).any():
            plain_logarithmic(panel, "y")
        panel.set(xlabel="score", xlim=(0, 1))
        panel.set_title(band_label(name), loc="left")
        panel.legend()
    axes[0].set_ylabel("detections")
    figure_of(axes[0]).suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure_of(axes[0])


@styled
def calibration(edges: Sequence[float], per_band: Counts, *, title: str = "") -> Figure:
    """Share of true detections (IoU 0.5) against their score, by band; on the diagonal a score is a probability.

    The legend gives the expected calibration error of each band: the mean distance of its detections from the diagonal.

    Args:
        edges: ``[B + 1]`` edges of the bins.
        per_band: counts.
        title: whose scores they are.
    """
    (axes,) = panels(height=4.2)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, label="calibrated")
    for color, (name, counts) in zip(hex_colors(len(per_band)), per_band.items(), strict=True):
        center, share, weight = _reliability(edges, counts)
        error = float((np.abs(center - share) * weight).sum() / weight.sum()) if len(weight) else float("nan")
        enough = weight >= _FEWEST
        label = f"{band_label(name)}: error {error:.3f}"
        axes.plot(center[enough], share[enough], color=color, marker="o", markersize=3, label=label)
    axes.set(xlabel="score", ylabel="share that is true", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(title, loc="left")
    axes.legend()
    return figure_of(axes)


def _reliability(
    edges: Sequence[float], counts: Mapping[str, Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean score (of the bins' centers), share of true ones and number of detections, of bins that hold any."""
    true, false = np.asarray(counts["true"], dtype=np.float64), np.asarray(counts["false"], dtype=np.float64)
    middle = (np.asarray(edges)[:-1] + np.asarray(edges)[1:]) / 2
    starts = np.arange(0, len(middle), _MERGED)
    number = np.add.reduceat(true + false, starts)
    held = number > 0
    score = np.add.reduceat((true + false) * middle, starts)[held] / number[held]
    return score, np.add.reduceat(true, starts)[held] / number[held], number[held]
