"""What the graph says of masks as run lengths of the original image; nothing here builds a mask of all its pixels.

The exception is a file exported with masks at the size of its input, whose masks have to be resized whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from aegl.data.run_lengths import to_counts


def paste_and_encode(
    masks: np.ndarray, boxes_orig: np.ndarray, height: int, width: int, threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Binary masks of the original image from probabilities over boxes, as compressed COCO run lengths.

    The value of a pixel is the mask interpolated bilinearly at the pixel's centre, the mask's samples lying at the
    centres of the cells of its box and zeros around them; no corners are aligned and the box is not rounded
    (detectron2's rule). It is computed only where it can differ from zero: in the box and half a cell around it.

    Args:
        masks: ``[n, m, m]`` float probabilities.
        boxes_orig: ``[n, 4]`` x1 y1 x2 y2 in pixels of the original image; may reach beyond it.
        height: of the original image.
        width: of the original image.
        threshold: pixels with at least this value are set; above 0, at most 1.

    Returns:
        ``n`` dictionaries ``{"size": [height, width], "counts": bytes}``. A box without a positive area (or with a
        coordinate that is not finite) gives the empty mask.

    Raises:
        ValueError: when ``threshold`` is outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}: must lie above 0 and at most 1")
    bordered = np.pad(np.asarray(masks, dtype=np.float32), ((0, 0), (1, 1), (1, 1)))
    boxes = np.asarray(boxes_orig, dtype=np.float64).reshape(-1, 4)
    runs = [_paste_runs(m, b, height, width, threshold) for m, b in zip(bordered, boxes, strict=True)]
    return [{"size": [height, width], "counts": counts} for counts in to_counts(runs)]


def resize_and_encode(masks: np.ndarray, size: Sequence[int], height: int, width: int) -> list[dict[str, Any]]:
    """Binary masks of the network input as compressed COCO run lengths of the original image.

    Args:
        masks: ``[n, H, W]`` bool or 0/1 uint8, over the canvas.
        size: height and width of the resized image inside the canvas.
        height: of the original image.
        width: of the original image.
    """
    runs = []
    for mask in masks[:, : int(size[0]), : int(size[1])]:
        grey = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
        resized = np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR))
        runs.append(_runs_of_crop(resized.T >= 128, 0, 0, height, width))
    return [{"size": [height, width], "counts": counts} for counts in to_counts(runs)]


def _paste_runs(bordered: np.ndarray, box: np.ndarray, height: int, width: int, threshold: float) -> np.ndarray:
    """Run lengths, down the columns, of an image with one mask (``[m + 2, m + 2]``, zero border) pasted into it."""
    x1, y1, x2, y2 = box.tolist()
    columns = _sampled_pixels(x1, x2, width, len(bordered) - 2)
    rows = _sampled_pixels(y1, y2, height, len(bordered) - 2)
    if columns is None or rows is None:
        return np.array([height * width])
    (x_first, x_low, x_share), (y_first, y_low, y_share) = columns, rows
    # Columns first, then rows, with the columns of the image on the leading axis: run lengths go down the columns.
    by_column = bordered.T
    left = by_column[x_low]
    across = left + (by_column[x_low + 1] - left) * x_share[:, None]
    top = across.take(y_low, axis=1)
    values = across.take(y_low + 1, axis=1)
    values -= top
    values *= y_share
    values += top
    return _runs_of_crop(values >= threshold, x_first, y_first, height, width)


def _sampled_pixels(low: float, high: float, limit: int, cells: int) -> tuple[int, np.ndarray, np.ndarray] | None:
    """Pixels of one axis that a mask can reach, and between which of its samples their centres lie.

    Returns:
        The first pixel, ``[k]`` int64 index of the lower sample in the bordered mask, ``[k]`` float32 share of the
        upper one; None when the mask reaches no pixel.
    """
    extent = high - low
    if not extent > 0 or not np.isfinite(extent):
        return None
    reach = extent / (2 * cells)
    first = max(0, int(np.floor(max(low - reach, 0.0) - 0.5)))
    last = min(limit, int(np.ceil(min(high + reach, float(limit)) + 0.5)))
    if last <= first:
        return None
    position = (np.arange(first, last) + 0.5 - low) / extent * cells + 0.5  # in samples of the bordered mask
    np.maximum(position, 0, out=position)  # beyond the border everything is zero, like the border itself
    np.minimum(position, cells + 1, out=position)
    lower = np.minimum(position.astype(np.int64), cells)
    return first, lower, (position - lower).astype(np.float32)


def _runs_of_crop(crop: np.ndarray, x_first: int, y_first: int, height: int, width: int) -> np.ndarray:
    """Run lengths of an image that is empty but for ``crop`` (``[columns, rows]`` bool), background first."""
    columns, rows = crop.shape
    framed = np.zeros((columns, rows + 2), dtype=np.int8)
    framed[:, 1:-1] = crop
    flat = framed.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1])  # starts and ends of runs by turns: every column ends in background
    column, row = np.divmod(changes, rows + 2)
    edges = (column + x_first) * height + row + y_first
    if rows == height:  # a run that reaches the bottom of the image goes on at the top of the next column
        joined = np.flatnonzero(edges[1:-1:2] == edges[2::2])
        edges = np.delete(edges, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    ends = np.append(edges, height * width)
    ends[1:] -= edges
    return ends[:-1] if len(ends) > 1 and ends[-1] == 0 else ends
