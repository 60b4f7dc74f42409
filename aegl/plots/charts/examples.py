"""Images with ground truth beside what runs found (Figure 6 of the FBS-AEGL paper)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from PIL.Image import Image

from aegl.plots.charts.canvas import styled

_WIDTH = 3.0


@styled
def picture_rows(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Image]]]) -> Figure:
    """A row for each image, a column for ground truth and for each run.

    Args:
        heads: titles of the columns.
        rows: caption and pictures of each image, as many as there are heads.
    """
    shapes = [max(picture.height / picture.width for picture in pictures) for _, pictures in rows]
    size = _WIDTH * len(heads), sum(_WIDTH * shape + 0.3 for shape in shapes)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), len(heads), squeeze=False, gridspec_kw={"height_ratios": shapes})
    for row, (caption, pictures) in enumerate(rows):
        for column, picture in enumerate(pictures):
            axes[row, column].imshow(picture)
            axes[row, column].set_axis_off()
            title = heads[column] if row == 0 else ""
            axes[row, column].set_title(f"{caption}\n{title}".strip() if column == 0 else title, loc="left", fontsize=8)
    return figure
