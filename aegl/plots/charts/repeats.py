"""What repeat-factor sampling does to every class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from aegl.plots.charts.canvas import TITLED, figure_of, hex_colors, panels, plain_logarithmic, styled
from aegl.plots.colors import band_label

_DOT = 6.0
"""Area of the dot of one class, in square points."""


@styled
def repeat_factors(
    images: np.ndarray,
    factors: np.ndarray,
    class_band: np.ndarray,
    band_names: Sequence[str],
    *,
    threshold: float,
) -> Figure:
    """Repeat factor of every class against the number of its images; classes without any are left out.

    Classes of one band with as many images share a dot, whose area grows with their number: the tail of LVIS has dozens
    of classes with a single image.

    Args:
        images: ``[C]`` training images of each class.
        factors: ``[C]`` repeat factors, at least 1 where the class occurs.
        class_band: ``[C]`` index of each class into ``band_names``.
        band_names: rarest first.
        threshold: share of images below which a class is repeated, for the title.
    """
    (axes,) = panels()
    there = np.asarray(images) > 0
    for band, color in enumerate(hex_colors(len(band_names))):
        inside = there & (np.asarray(class_band) == band)
        if not inside.any():
            continue
        factor = np.asarray(factors)[inside]
        (x, y), classes = np.unique(np.stack([np.asarray(images)[inside], factor]), axis=1, return_counts=True)
        label = f"{band_label(band_names[band])}: {len(factor)} classes, {_times(factor)}"
        axes.scatter(x, y, s=_DOT * classes, alpha=0.6, color=color, linewidths=0, label=label)
    plain_logarithmic(axes, "x")
    axes.set(xlabel="training images of the class", ylabel="repeat factor")
    repeated = int((np.asarray(factors)[there] > 1).sum())
    axes.set_title(f"threshold {threshold:g}: {repeated} of {int(there.sum())} classes are repeated", loc="left")
    axes.set_ylim(0.9, 1.08 * max(1.2, float(np.max(factors, initial=1.0))))
    for handle in axes.legend(title="area: number of classes", **TITLED).legend_handles:
        handle.set_sizes([3 * _DOT])  # type: ignore[union-attr]
    return figure_of(axes)


def _times(factors: np.ndarray) -> str:
    if factors.max() <= 1:
        return "not repeated"
    return f"{factors.max():.2f} to {factors.min():.2f} times"
