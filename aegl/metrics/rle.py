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
_FIRST_CHARACTER = np.uint8(48)
_NOT_LAST = bytes(range(32, 256))
"""Codes of digits that others follow."""
_LAST_DIGIT = bytes((((code & 31) ^ 16) - 16) % 256 for code in range(256))
"""What a code is worth as the last digit of a number, whose bit 4 is the sign, as int8."""


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

    def joined(self, rows: np.ndarray) -> np.ndarray:
        """The ``counts`` strings of many masks one after the other (uint8); no copy if they stand so already."""
        starts, stops = self.starts[rows], self.starts[rows] + self.lengths[rows]
        if len(self.parts) == 1 and len(starts) and (starts[1:] == stops[:-1]).all():
            return self.parts[0][starts[0] : stops[-1]]
        return np.frombuffer(b"".join(self.counts(rows)), dtype=np.uint8)

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
    total[masks.lengths == 0] = -1
    filled = np.flatnonzero(masks.lengths)
    done = np.cumsum(masks.lengths[filled], dtype=np.int64)
    start = 0
    while start < len(filled):
        limit = (done[start - 1] if start else 0) + _CHUNK_BYTES
        stop = max(start + 1, int(np.searchsorted(done, limit, side="right")))
        rows = filled[start:stop]
        foreground[rows], total[rows] = _pixel_counts(masks.joined(rows), masks.lengths[rows])
        start = stop
    return foreground, total


def runs_of(counts: bytes) -> np.ndarray:
    """Lengths of the runs of one valid compressed mask, background first (int64)."""
    runs = _numbers(np.frombuffer(counts, dtype=np.uint8) - _FIRST_CHARACTER, np.array([len(counts)]))[0]
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def _pixel_counts(data: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Foreground and all pixels of masks of at least one character each."""
    codes = data - _FIRST_CHARACTER  # characters below the alphabet wrap around to high codes
    stops = np.cumsum(lengths, dtype=np.int64)
    broken = codes[stops - 1] >= 32
    codes[stops - 1] &= 31  # so that a number cut short does not run on into the next mask
    if codes.max() > 63:
        strange = np.flatnonzero(codes > 63)
        broken[np.searchsorted(stops, strange, side="right")] = True
        codes[strange] = 0
    values, begins, too_long = _numbers(codes, stops)
    foreground, total, negative = _sums_of_runs(values, begins)
    broken[too_long] = True
    return foreground, np.where(broken | negative, -1, total)


def _numbers(codes: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stored numbers of masks whose last characters ``stops`` are one behind.

    Most numbers have one digit, so all are taken for such first.

    Returns:
        ``[n]`` int64 numbers; ``[N + 1]`` where among them those of each mask begin, and where the last mask's end; the
        masks that have a number with more digits than any run needs.
    """
    values = np.frombuffer(codes.tobytes().translate(_LAST_DIGIT, _NOT_LAST), dtype=np.int8).astype(np.int64)
    more = np.flatnonzero(codes >= 32)  # digits that others follow, lowest first
    begins = np.concatenate([[0], stops - np.searchsorted(more, stops)])
    first = np.flatnonzero(codes[more - 1] < 32)  # the very last code, which comes before the first, is such a one too
    lowest = more[first]
    digits = np.diff(np.concatenate([first, [len(more)]])) + 1
    place = lowest - first  # of the number among all: what stands before it, but for digits that others follow
    too_long = np.searchsorted(stops, lowest[digits > _MOST_DIGITS], side="right")
    digits = np.minimum(digits, _MOST_DIGITS)
    numbers = values[place] << (5 * (digits - 1))
    numbers |= codes[lowest] & 31
    for digit in range(1, int(digits.max(initial=1)) - 1):
        longer = np.flatnonzero(digits > digit + 1)
        numbers[longer] |= (codes[lowest[longer] + digit] & 31).astype(np.int64) << (5 * digit)
    values[place] = numbers
    return values, begins, too_long


def _sums_of_runs(values: np.ndarray, begins: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Foreground and all pixels of masks of at least one number each, and which of them have a run below zero.

    From a mask's fourth number on, each is the difference to the run two before: the runs are two running sums, over
    the even and over the odd numbers. These are formed over all masks at once; what they stood at before a mask is then
    taken off. The first number, of background, is no part of the sums that follow it.
    """
    first, odd = values[begins[:-1]], begins[:-1] % 2
    negative = first < 0
    sums = np.empty((2, len(first)), dtype=np.int64)
    for lane in (0, 1):
        every_second = values[lane::2]
        level = np.zeros(len(every_second) + 2, dtype=np.int64)  # with a place to begin from and one to end at
        np.cumsum(every_second, out=level[1:-1])
        edges = (begins + 1 - lane) // 2 + 1
        count = np.diff(edges)
        before = level[edges[:-1] - (odd != lane)]
        sums[lane] = np.where(count > 0, np.add.reduceat(level, edges)[:-1] - count * before, 0)
        negative |= (count > 0) & (np.minimum.reduceat(level, edges)[:-1] < before)
    return np.where(odd, sums[0], sums[1]), first + sums.sum(axis=0), negative


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
