"""Compressed run-length masks as one flat column, and what can be known of them without decoding to pixels.

The encoding is pycocotools': column-major runs, background first, each run from the fourth on stored as its difference
to the run two before it, in base 32 with six bits a character.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

_CHUNK_BYTES = 1 << 17
_CHUNK_MASKS = 128
"""pycocotools' vectorised calls overflow on lists longer than 255 masks under NumPy 2."""
_MOST_DIGITS = 7
"""35 bits: run lengths are of 32, their differences of 33."""


@dataclass(frozen=True)
class MaskColumn:
    """``N`` compressed masks as slices of large arrays, which may be memory maps: choosing rows copies no mask.

    Args:
        parts: uint8 arrays holding ``counts`` strings one after the other, thought of as joined.
        starts: ``[N]`` int64, where each string begins in the joined parts; none crosses from one part to the next.
        lengths: ``[N]`` int32 length of each string.
    """

    parts: tuple[np.ndarray, ...]
    starts: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        """Number of masks."""
        return len(self.starts)

    def __getitem__(self, row: int) -> bytes:
        """The ``counts`` string of one mask."""
        return self.counts(np.array([row]))[0]

    @cached_property
    def _part_starts(self) -> np.ndarray:
        return np.cumsum([0, *(len(part) for part in self.parts[:-1])])

    def counts(self, rows: np.ndarray | slice) -> list[bytes]:
        """The ``counts`` strings of many masks."""
        starts, lengths = self.starts[rows], self.lengths[rows]
        part = np.searchsorted(self._part_starts, starts, side="right") - 1
        starts = starts - self._part_starts[part]
        views = {index: memoryview(self.parts[index]) for index in np.unique(part).tolist()}
        places = zip(part.tolist(), starts.tolist(), (starts + lengths).tolist(), strict=True)
        return [bytes(views[index][start:stop]) for index, start, stop in places]

    @classmethod
    def packed(cls, data: np.ndarray, lengths: np.ndarray) -> MaskColumn:
        """Column of the strings that ``data`` holds one after the other."""
        return cls((data,), np.cumsum(lengths, dtype=np.int64) - lengths, lengths)

    @classmethod
    def from_counts(cls, counts: Sequence[bytes]) -> MaskColumn:
        """Build the column from ``counts`` strings."""
        return cls.packed(
            np.frombuffer(b"".join(counts), dtype=np.uint8), np.array([*map(len, counts)], dtype=np.int32)
        )

    @classmethod
    def concatenate(cls, columns: Iterable[MaskColumn]) -> MaskColumn:
        """All masks of several columns, in order."""
        columns = list(columns)
        sizes = [sum(len(part) for part in column.parts) for column in columns]
        shifts = np.cumsum([0, *sizes])
        return cls(
            tuple(part for column in columns for part in column.parts),
            np.concatenate([np.zeros(0, np.int64), *(c.starts + s for c, s in zip(columns, shifts, strict=False))]),
            np.concatenate([np.zeros(0, np.int32), *(c.lengths for c in columns)]),
        )

    def take(self, rows: np.ndarray) -> MaskColumn:
        """The masks of ``rows`` (int64 indices), in that order."""
        return MaskColumn(self.parts, self.starts[rows], self.lengths[rows])


def encode(segmentation: Any, height: int, width: int) -> bytes:
    """``counts`` of a polygon list, an uncompressed or a compressed RLE, as the official packages rasterise it.

    Polygons may be flat lists or ``[k, 2]`` arrays. Raises ``ValueError`` saying what cannot be used.
    """
    if isinstance(segmentation, dict):
        return _encode_rle(segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("the segmentation is neither a list of polygons nor an RLE")
    polygons = [np.asarray(p, dtype=np.float64).reshape(-1).tolist() for p in segmentation]
    # A sum is finite where all are, and quicker to look at; coordinates are far from overflowing.
    if any(len(p) < 4 or len(p) % 2 or not math.isfinite(sum(p)) for p in polygons):
        raise ValueError("the segmentation holds a polygon that is not a list of at least two points")
    rles = mask_utils.frPyObjects(polygons, height, width)
    return bytes((rles[0] if len(rles) == 1 else mask_utils.merge(rles))["counts"])


def _encode_rle(rle: dict[str, Any], height: int, width: int) -> bytes:
    size, counts = rle.get("size"), rle.get("counts")
    if size is None or [int(v) for v in size] != [height, width]:
        raise ValueError(f"the mask's size is {size}, the image's [height, width] is {[height, width]}")
    if isinstance(counts, str):
        if not counts.isascii():
            raise ValueError("the mask's counts hold characters that no RLE has")
        return counts.encode()
    if isinstance(counts, bytes):
        return counts
    if isinstance(counts, list | np.ndarray):
        runs = [int(c) for c in counts]
        if sum(runs) != height * width or min(runs) < 0:
            raise ValueError(f"the mask's runs add up to {sum(runs)} pixels, the image has {height * width}")
        return bytes(mask_utils.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"])
    raise ValueError("the mask's RLE has no counts")


def pixel_counts(masks: MaskColumn) -> tuple[np.ndarray, np.ndarray]:
    """Foreground pixels and all pixels of every mask: two ``[N]`` int64 arrays.

    A string that is no valid encoding counts -1 pixels in all, so comparing with the image's size finds it.
    """
    foreground, total = np.zeros((2, len(masks)), dtype=np.int64)
    done = np.cumsum(masks.lengths, dtype=np.int64)
    start = 0
    while start < len(masks):
        limit = (done[start - 1] if start else 0) + _CHUNK_BYTES
        stop = max(start + 1, int(np.searchsorted(done, limit, side="right")))
        data = np.frombuffer(b"".join(masks.counts(slice(start, stop))), dtype=np.uint8)
        foreground[start:stop], total[start:stop] = _pixel_counts(data, masks.lengths[start:stop])
        start = stop
    return foreground, total


def _pixel_counts(data: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes = data - np.uint8(48)  # characters below the alphabet wrap around to high codes
    stops = np.cumsum(lengths, dtype=np.int64)
    broken = lengths == 0
    if codes.max(initial=0) > 63:
        strange = np.flatnonzero(codes > 63)
        broken[np.searchsorted(stops, strange, side="right")] = True
        codes[strange] = 0
    last = stops[~broken] - 1
    broken[~broken] = codes[last] >= 32
    codes[stops[lengths > 0] - 1] &= 31  # so that a number cut short does not run on into the next mask
    values, count, too_long = _numbers(codes, stops, lengths)
    broken[too_long] = True
    first, runs, row_start = _runs(values, count)
    if runs.min(initial=0) < 0:
        below = np.flatnonzero((runs < 0).any(axis=1))
        broken[np.searchsorted(row_start, below, side="right") - 1] = True
    foreground, rest = np.add.reduceat(runs, row_start).T
    broken |= first < 0
    return foreground, np.where(broken, -1, first + foreground + rest)


def _numbers(codes: np.ndarray, stops: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stored numbers, how many each mask has, and which masks have one with more digits than any run needs.

    Nearly all numbers have one digit, so all are taken for such first.
    """
    values = ((codes[codes < 32] ^ 16).view(np.int8) - np.int8(16)).astype(np.int64)  # bit 4 is the sign
    more = np.flatnonzero(codes >= 32)  # digits that others follow, lowest first
    first = np.flatnonzero(np.diff(more, prepend=-2) > 1)
    begins, digits = more[first], np.diff(first, append=len(more)) + 1
    too_long = np.searchsorted(stops, begins[digits > _MOST_DIGITS], side="right")
    digits_kept = np.minimum(digits, _MOST_DIGITS)
    place = begins - first  # of the number among all: what stands before it, without the digits that others follow
    number = values[place] << (5 * (digits_kept - 1))
    for digit in range(int(digits_kept.max(initial=1)) - 1):
        longer = np.flatnonzero(digits_kept > digit + 1)
        number[longer] |= (codes[begins[longer] + digit] & 31).astype(np.int64) << (5 * digit)
    values[place] = number
    count = lengths - np.bincount(np.searchsorted(stops, more, side="right"), minlength=len(stops))
    return values, count, too_long


def _runs(values: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run lengths of masks that hold ``count`` numbers each.

    Returns:
        ``[N]`` first (background) run of each mask; ``[K, 2]`` further runs, foreground and background, in rows of
        their own for every mask, 0 where there is none; ``[N]`` each mask's first row.
    """
    rows = (count + 2) // 2
    row_start = np.cumsum(rows) - rows
    number_start = np.cumsum(count) - count
    filled = np.flatnonzero(count)
    first = np.zeros(len(count), dtype=np.int64)
    first[filled] = values[number_start[filled]]
    # Every second run is a difference to the one two before: two running sums side by side. The first run stands alone;
    # its place, and an empty one before it, hold 0.
    runs = np.zeros((int(rows.sum()), 2), dtype=np.int64)
    runs.reshape(-1)[np.arange(len(values)) + np.repeat(2 * row_start + 1 - number_start, count)] = values
    runs[row_start[filled], 1] = 0
    np.cumsum(runs, axis=0, out=runs)
    runs -= np.repeat(np.concatenate([[[0, 0]], runs[row_start[1:] - 1]]), rows, axis=0)
    odd = np.flatnonzero(count % 2 == 0)
    runs[row_start[odd] + rows[odd] - 1, 1] = 0
    return first, runs, row_start


def boxes_of(masks: MaskColumn, sizes: np.ndarray) -> np.ndarray:
    """``[N, 4]`` float64 ``x y w h`` boxes around masks; ``sizes`` is ``[N, 2]`` (height, width)."""
    boxes = np.zeros((len(masks), 4), dtype=np.float64)
    for start in range(0, len(masks), _CHUNK_MASKS):
        rows = slice(start, start + _CHUNK_MASKS)
        rles = zip(masks.counts(rows), sizes[rows], strict=True)
        boxes[rows] = mask_utils.toBbox([as_rle(counts, size) for counts, size in rles])
    return boxes


def as_rle(counts: bytes, size: np.ndarray) -> dict[str, Any]:
    """pycocotools' form of one mask; ``size`` is (height, width)."""
    return {"size": [int(size[0]), int(size[1])], "counts": counts}
