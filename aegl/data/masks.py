"""Masks of a file, as polygons or run lengths, and what is made of them: rasters over a box, run lengths of the image.

NumPy and pycocotools only. Rasters are made without an image-sized mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from aegl.data.run_lengths import FIRST_SYMBOL, MOST_SYMBOLS, run_lengths

Segmentation = Sequence[np.ndarray] | dict[str, Any]
"""Polygons, each ``[k, 2]`` float64 in original pixels, or ``{"size": [h, w], "counts": bytes}``."""

_CHUNK = 128  # pycocotools' vectorised calls overflow on lists longer than 255 masks under NumPy 2
MIN_CORNERS = 3


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
    strange = (symbols < FIRST_SYMBOL) | (symbols >= FIRST_SYMBOL + 64)
    if strange.any():
        raise ValueError(f"the character {chr(symbols[np.argmax(strange)])!a} has no meaning")
    ends = np.flatnonzero((symbols - FIRST_SYMBOL) & 32 == 0)
    if len(symbols) and (not len(ends) or ends[-1] != len(symbols) - 1):
        raise ValueError("its text is cut short")
    if np.diff(ends, prepend=-1).max(initial=0) > MOST_SYMBOLS:
        raise ValueError("a run length has too many digits")
    runs = run_lengths(raw)
    if runs.min(initial=0) < 0:
        raise ValueError(f"a run length is {runs.min()}")
    return int(runs.sum())


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
    ends = np.cumsum(run_lengths(counts))
    offset, length = left * height, (right - left) * height
    toggles = np.zeros(length + 1, dtype=np.uint8)
    # The value after k run ends is k mod 2: runs begin with background. Run ends may coincide (runs of length 0).
    np.add.at(toggles, np.clip(ends - offset, 0, length), 1)
    return (np.cumsum(toggles[:-1], dtype=np.uint8) & 1).reshape(right - left, height)
