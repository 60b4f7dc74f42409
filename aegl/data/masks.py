"""Masks between three forms: polygons or run lengths in a file, rasters over a box, run lengths of a detection.

NumPy and pycocotools only, so that a runtime without torch can use it. Nothing here builds an image-sized mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

Segmentation = Sequence[np.ndarray] | dict[str, Any]
"""Polygons, each ``[k, 2]`` float64 in original pixels, or ``{"size": [h, w], "counts": bytes}``."""

_CHUNK = 128  # pycocotools' vectorised calls overflow on lists longer than 255 masks under NumPy 2
MIN_CORNERS = 3
_FIRST_SYMBOL = 48  # the character of zero in a compressed RLE
_MOST_SYMBOLS = 7  # 35 bits: run lengths are of 32, their differences of 33


def rasterize_in_box(
    segmentation: Segmentation, box_xyxy: np.ndarray, size: int, image_hw: Sequence[int]
) -> np.ndarray:
    """One object's mask over its own box; see :func:`rasterize_in_boxes`. Returns ``[size, size]`` uint8."""
    return rasterize_in_boxes([segmentation], np.asarray(box_xyxy, dtype=np.float64)[None], size, image_hw)[0]


def rasterize_in_boxes(
    segmentations: Sequence[Segmentation], boxes_xyxy: np.ndarray, size: int, image_hw: Sequence[int]
) -> np.ndarray:
    """Masks of an image's objects, each over its own box.

    Polygons are moved and scaled into the frame of the box and rasterised there by pycocotools; of an RLE only the
    columns under the box are decoded and then averaged over the cells of the raster (set where half a cell is covered).

    Args:
        segmentations: one per object, in the pixels of ``boxes_xyxy``.
        boxes_xyxy: ``[G, 4]`` float64 x1 y1 x2 y2 with positive sides.
        size: side ``M`` of the rasters.
        image_hw: height and width of the image.

    Returns:
        ``[G, M, M]`` uint8 in {0, 1}. Polygons of fewer than three corners cover nothing.

    Raises:
        ValueError: when the size of an RLE is not that of the image.
    """
    masks = np.zeros((len(segmentations), size, size), dtype=np.uint8)
    polygons: list[list[float]] = []
    owners: list[int] = []
    for k, (segmentation, box) in enumerate(zip(segmentations, boxes_xyxy, strict=True)):
        if isinstance(segmentation, dict):
            masks[k] = _rle_in_box(segmentation, box, size, image_hw)
            continue
        scale = size / (box[2:] - box[:2])
        for polygon in segmentation:
            if len(polygon) >= MIN_CORNERS:
                polygons.append(((polygon - box[:2]) * scale).ravel().tolist())
                owners.append(k)
    for start in range(0, len(polygons), _CHUNK):
        part = slice(start, start + _CHUNK)
        rasters = mask_utils.decode(mask_utils.frPyObjects(polygons[part], size, size)).transpose(2, 0, 1)
        for owner, raster in zip(owners[part], rasters, strict=True):
            masks[owner] |= raster
    return masks


def to_rle(segmentation: Segmentation, image_hw: Sequence[int]) -> dict[str, Any]:
    """The mask of an object in the whole image, ``{"size": [h, w], "counts": bytes}``.

    Polygons of fewer than three corners cover nothing.
    """
    if isinstance(segmentation, dict):
        return segmentation
    height, width = (int(v) for v in image_hw)
    polygons = [polygon.ravel().tolist() for polygon in segmentation if len(polygon) >= MIN_CORNERS]
    if not polygons:
        return dict(mask_utils.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width))
    return dict(mask_utils.merge(mask_utils.frPyObjects(polygons, height, width)))


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
    counts = [_paste_runs(m, b, height, width, threshold) for m, b in zip(bordered, boxes, strict=True)]
    if not counts:
        return []
    runs = [{"size": [height, width], "counts": c} for c in counts]
    return list(mask_utils.frPyObjects(runs, height, width))


def rle_pixels(counts: bytes | str) -> int:
    """Pixels that a compressed RLE covers, background included.

    Raises:
        ValueError: if it is no sequence of run lengths, saying why.
    """
    try:
        raw = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError as error:
        raise ValueError(f"the character {counts[error.start]!a} has no meaning") from error
    symbols = np.frombuffer(raw, dtype=np.uint8)
    strange = (symbols < _FIRST_SYMBOL) | (symbols >= _FIRST_SYMBOL + 64)
    if strange.any():
        raise ValueError(f"the character {chr(symbols[np.argmax(strange)])!a} has no meaning")
    ends = np.flatnonzero((symbols - _FIRST_SYMBOL) & 32 == 0)
    if len(symbols) and (not len(ends) or ends[-1] != len(symbols) - 1):
        raise ValueError("its text is cut short")
    if np.diff(ends, prepend=-1).max(initial=0) > _MOST_SYMBOLS:
        raise ValueError("a run length has too many digits")
    runs = _run_lengths(raw)
    if runs.min(initial=0) < 0:
        raise ValueError(f"a run length is {runs.min()}")
    return int(runs.sum())


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


def _rle_in_box(rle: dict[str, Any], box: np.ndarray, size: int, image_hw: Sequence[int]) -> np.ndarray:
    height, width = (int(v) for v in rle["size"])
    if (height, width) != (int(image_hw[0]), int(image_hw[1])):
        raise ValueError(f"the mask's size is {[height, width]}, the image's [height, width] is {list(image_hw)}")
    x1, y1, x2, y2 = box.tolist()
    left, right = max(0, int(np.floor(x1))), min(width, int(np.ceil(x2)))
    top, bottom = max(0, int(np.floor(y1))), min(height, int(np.ceil(y2)))
    if right <= left or bottom <= top:
        return np.zeros((size, size), dtype=np.uint8)
    crop = _decode_columns(rle["counts"], height, left, right)[:, top:bottom]
    across = _cell_shares(x1 - left, x2 - left, right - left, size) @ crop.astype(np.float32)
    covered = _cell_shares(y1 - top, y2 - top, bottom - top, size) @ across.T
    return (covered >= 0.5).astype(np.uint8)


def _cell_shares(low: float, high: float, pixels: int, cells: int) -> np.ndarray:
    """``[cells, pixels]`` float32: the share of each of ``cells`` equal parts of [low, high] that each pixel covers."""
    edges = np.linspace(low, high, cells + 1)[:, None]
    starts = np.arange(pixels)[None, :]
    overlap = np.minimum(edges[1:], starts + 1) - np.maximum(edges[:-1], starts)
    return (np.maximum(overlap, 0) * (cells / (high - low))).astype(np.float32)


def _decode_columns(counts: bytes | str, height: int, left: int, right: int) -> np.ndarray:
    """Columns ``left`` to ``right`` (exclusive) of a compressed RLE: ``[right - left, height]`` uint8."""
    ends = np.cumsum(_run_lengths(counts))
    offset, length = left * height, (right - left) * height
    toggles = np.zeros(length + 1, dtype=np.uint8)
    # The value after k run ends is k mod 2: runs begin with background. Run ends may coincide (runs of length 0).
    np.add.at(toggles, np.clip(ends - offset, 0, length), 1)
    return (np.cumsum(toggles[:-1], dtype=np.uint8) & 1).reshape(right - left, height)


def _run_lengths(counts: bytes | str) -> np.ndarray:
    """``[r]`` int64 run lengths of a compressed RLE.

    A character holds five bits of a number, lowest first, and bit 5 says that more follow; numbers are signed, and from
    the fourth on they are differences to the number two before.
    """
    raw = counts.encode("ascii") if isinstance(counts, str) else counts
    symbols = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - _FIRST_SYMBOL
    if not len(symbols):
        return np.zeros(0, dtype=np.int64)
    is_last = (symbols & 32) == 0
    starts = np.concatenate([[0], np.flatnonzero(is_last)[:-1] + 1])
    lengths = np.diff(starts, append=len(symbols))
    place = np.arange(len(symbols)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((symbols & 31) << (5 * place), starts)
    negative = (symbols[starts + lengths - 1] & 16) != 0
    numbers = np.where(negative, numbers - (np.int64(1) << (5 * lengths)), numbers)
    # Undoing the differences: two interleaved running sums, begun by the second and third number.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return np.asarray(numbers)
