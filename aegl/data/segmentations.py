"""Segmentations of an annotation file: what can be wrong with them, and their run lengths in pycocotools' form."""

from __future__ import annotations

from typing import Any, NamedTuple

from pycocotools import mask as coco_mask

from aegl.data.json_values import are_numbers, is_whole, short
from aegl.data.masks import rle_pixels

Size = tuple[int, int]
"""Height and width."""


class Broken(NamedTuple):
    """Why a segmentation cannot be used: the kind of problem, and a message that goes on from "annotation 7: "."""

    kind: str
    message: str


def find_broken(segmentation: Any, size: Size) -> Broken | None:
    """What is wrong with a segmentation of an image of this size, or None.

    No segmentation, no polygons, and polygons of too few corners for an area can be read and are not wrong here.
    """
    if segmentation is None:
        return None
    if isinstance(segmentation, list):
        reasons = map(_broken_polygon, segmentation)
        reason = next((reason for reason in reasons if reason is not None), None)
        return None if reason is None else Broken("broken polygon", reason)
    if isinstance(segmentation, dict):
        return _broken_rle(segmentation, size)
    return Broken("broken segmentation", f"segmentation {short(segmentation)} is neither a list of polygons nor an RLE")


def compressed_counts(rle: dict[str, Any], size: Size) -> bytes:
    """The compressed ``counts`` of an RLE that :func:`find_broken` finds nothing wrong with."""
    counts = rle["counts"]
    if isinstance(counts, str):
        return counts.encode()
    runs = {"size": list(size), "counts": [int(run) for run in counts]}
    return bytes(coco_mask.frPyObjects(runs, *size)["counts"])


def _broken_polygon(polygon: Any) -> str | None:
    if not isinstance(polygon, list):
        return f"segmentation holds {short(polygon)} where a polygon should be, a list of its own: [[x, y, x, y, ...]]"
    if not are_numbers(polygon):
        wrong = next(value for value in polygon if not are_numbers((value,)))
        return f"a polygon has {short(wrong)}, which is not a finite number"
    if len(polygon) % 2:
        return f"a polygon has {len(polygon)} numbers, but x and y come in pairs"
    return None


def _broken_rle(rle: dict[str, Any], size: Size) -> Broken | None:
    given = rle.get("size", list(size))
    if given != list(size):
        message = f"its RLE is of {short(given)}, the image of {list(size)} (height, width)"
        return Broken("wrong RLE size", message)
    counts = rle.get("counts")
    if counts is None:
        return Broken("broken RLE", "its RLE segmentation has no counts")
    try:
        pixels = _pixels(counts)
    except ValueError as error:
        return Broken("broken RLE", f"its RLE cannot be decoded ({error})")
    if pixels != size[0] * size[1]:
        return Broken("broken RLE", f"its RLE is of {pixels} pixels, the image has {size[0] * size[1]}")
    return None


def _pixels(counts: Any) -> int:
    if isinstance(counts, str):
        return rle_pixels(counts)
    if not isinstance(counts, list) or not all(is_whole(run) and run >= 0 for run in counts):
        raise ValueError(f"counts {short(counts)} are neither text nor whole numbers from 0")
    return sum(map(int, counts))
