"""Detection in parts of a large image (Akyon et al., Slicing Aided Hyper Inference, ICIP 2022), made one result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from aegl.data.run_lengths import decode
from aegl.runtime.postprocess import ImageDetections

_SHARED = 0.5
"""Share of the smaller of two boxes of a class inside the other from which they are one object, seen twice."""


@dataclass(frozen=True)
class Slicing:
    """How images are cut.

    Args:
        side: of the square parts, in pixels of the image.
        overlap: share of a side that neighbours have in common, in [0, 1).
    """

    side: int
    overlap: float = 0.2


class Tile(NamedTuple):
    """A part of an image, in pixels: rows ``top`` to ``bottom``, columns ``left`` to ``right``, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int


def tiles_of(size: Sequence[int], slicing: Slicing) -> list[Tile]:
    """Tiles that cover an image of height and width ``size``; none where it is no larger than one tile.

    The last ones of a row or column are moved inwards and not made smaller.
    """
    height, width = int(size[0]), int(size[1])
    if max(height, width) <= slicing.side:
        return []
    return [
        Tile(top, left, min(top + slicing.side, height), min(left + slicing.side, width))
        for top in _starts(height, slicing)
        for left in _starts(width, slicing)
    ]


def merged(
    whole: ImageDetections,
    inside: Sequence[ImageDetections],
    tiles: Sequence[Tile],
    size: Sequence[int],
    max_det: int,
) -> ImageDetections:
    """The detections of the whole image and of its tiles as one result.

    Of several detections of one class that share at least half of the smaller one's box the best stays: objects that
    several tiles see, and pieces that a tile's edge has cut off.

    Args:
        whole: of the whole image.
        inside: of each tile, in its pixels.
        tiles: the tiles.
        size: height and width of the image.
        max_det: most detections to keep.
    """
    parts = [whole, *(_moved(found, tile, size) for found, tile in zip(inside, tiles, strict=True))]
    boxes = np.concatenate([part.boxes_orig for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    masks: list[dict[str, Any]] = [mask for part in parts for mask in part.masks]
    keep = _best(boxes, scores, labels)[:max_det]
    return ImageDetections(boxes[keep], scores[keep], labels[keep], [masks[row] for row in keep] if masks else [])


def _starts(length: int, slicing: Slicing) -> list[int]:
    if length <= slicing.side:
        return [0]
    step = max(1, int(slicing.side * (1 - slicing.overlap)))
    starts = list(range(0, length - slicing.side, step))
    return [*starts, length - slicing.side]


def _moved(found: ImageDetections, tile: Tile, size: Sequence[int]) -> ImageDetections:
    """Detections of a tile in the pixels of the image."""
    boxes = found.boxes_orig + np.array([tile.left, tile.top] * 2, dtype=np.float64)
    return ImageDetections(boxes, found.scores, found.labels, [_moved_mask(mask, tile, size) for mask in found.masks])


def _moved_mask(mask: dict[str, Any], tile: Tile, size: Sequence[int]) -> dict[str, Any]:
    canvas = np.zeros((int(size[0]), int(size[1])), dtype=np.uint8, order="F")
    canvas[tile.top : tile.bottom, tile.left : tile.right] = decode(mask)
    return dict(coco_mask.encode(canvas))


def _best(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows of the detections that stay, by falling score."""
    area = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.maximum(high - low, 0).prod(axis=1)
        same = (labels[order] == labels[best]) & (shared >= _SHARED * np.minimum(area[best], area[order]))
        order = order[~same]
    return np.array(kept, dtype=np.int64)
