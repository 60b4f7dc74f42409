"""Compressed run-length masks as one flat column, and what can be known of them without decoding to pixels.

The encoding is pycocotools': column-major runs, background first, each run from the fourth on stored as its difference
to the run two before it, in base 32 with six bits a character.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

_CHUNK_BYTES = 1 << 20
_CHUNK_MASKS = 128
"""pycocotools' vectorised calls overflow on lists longer than 255 masks under NumPy 2."""


@dataclass(frozen=True)
class MaskColumn:
    """``N`` compressed masks: the characters of all of them in one array.

    Args:
        data: ``[bytes]`` uint8, the ``counts`` strings one after the other.
        offsets: ``[N + 1]`` int64, where each string begins and the last one ends.
    """

    data: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Number of masks."""
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        """The ``counts`` string of one mask."""
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    @classmethod
    def from_counts(cls, counts: Sequence[bytes]) -> MaskColumn:
        """Build the column from ``counts`` strings."""
        offsets = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum([len(c) for c in counts], out=offsets[1:])
        return cls(np.frombuffer(b"".join(counts), dtype=np.uint8), offsets)

    @classmethod
    def concatenate(cls, columns: Iterable[MaskColumn]) -> MaskColumn:
        """All masks of several columns, in order."""
        columns = list(columns)
        data = [np.zeros(0, dtype=np.uint8), *(c.data for c in columns)]
        lengths = [np.zeros(1, dtype=np.int64), *(np.diff(c.offsets) for c in columns)]
        return cls(np.concatenate(data), np.cumsum(np.concatenate(lengths)))

    def take(self, rows: np.ndarray) -> MaskColumn:
        """The masks of ``rows`` (int64 indices), in that order."""
        return MaskColumn.from_counts([self[int(row)] for row in rows])


def encode(segmentation: Any, height: int, width: int) -> bytes:
    """``counts`` of a polygon list, an uncompressed or a compressed RLE, as the official packages rasterise it.

    Polygons may be flat lists or ``[k, 2]`` arrays. Raises ``ValueError`` saying what cannot be used.
    """
    if isinstance(segmentation, dict):
        return _encode_rle(segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("the segmentation is neither a list of polygons nor an RLE")
    polygons = [np.asarray(p, dtype=np.float64).reshape(-1).tolist() for p in segmentation]
    if any(len(p) < 4 or len(p) % 2 or not np.isfinite(p).all() for p in polygons):
        raise ValueError("the segmentation holds a polygon that is not a list of at least two points")
    return bytes(mask_utils.merge(mask_utils.frPyObjects(polygons, height, width))["counts"])


def _encode_rle(rle: dict[str, Any], height: int, width: int) -> bytes:
    size, counts = rle.get("size"), rle.get("counts")
    if size is None or [int(v) for v in size] != [height, width]:
        raise ValueError(f"the mask's size is {size}, the image's [height, width] is {[height, width]}")
    if isinstance(counts, str):
        return counts.encode("ascii", errors="replace")
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
    foreground = np.zeros(len(masks), dtype=np.int64)
    total = np.full(len(masks), -1, dtype=np.int64)
    start = 0
    while start < len(masks):
        limit = masks.offsets[start] + _CHUNK_BYTES
        stop = max(start + 1, int(np.searchsorted(masks.offsets, limit, side="right")) - 1)
        foreground[start:stop], total[start:stop] = _pixel_counts(masks, start, stop)
        start = stop
    return foreground, total


def _pixel_counts(masks: MaskColumn, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    offsets = masks.offsets[start : stop + 1] - masks.offsets[start]
    codes = masks.data[masks.offsets[start] : masks.offsets[stop]].astype(np.int64) - 48
    owner = np.repeat(np.arange(stop - start), np.diff(offsets))
    foreground, total = np.zeros(stop - start, dtype=np.int64), np.zeros(stop - start, dtype=np.int64)
    last = (codes & 0x20) == 0
    filled = np.diff(offsets) > 0
    broken = ~filled
    broken[filled] = ~last[offsets[1:][filled] - 1]
    broken[owner[(codes < 0) | (codes > 63)]] = True
    if not broken.all():
        runs, run_owner, position = _runs(codes, last, owner)
        np.add.at(total, run_owner, runs)
        np.add.at(foreground, run_owner, np.where(position % 2 == 1, runs, 0))
        broken[run_owner[runs < 0]] = True
    total[broken] = -1
    return foreground, total


def _runs(codes: np.ndarray, last: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run lengths, the mask each belongs to, and its position in that mask."""
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    codes = codes[: ends[-1] + 1]
    digit = np.minimum(np.arange(len(codes)) - np.repeat(starts, lengths), 11)  # more digits would overflow: invalid
    values = np.add.reduceat((codes & 0x1F) << (5 * digit), starts)
    values -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * np.minimum(lengths, 12)), 0)
    run_owner = owner[ends]
    first = np.concatenate([[True], run_owner[1:] != run_owner[:-1]])
    position = np.arange(len(values)) - np.maximum.accumulate(np.where(first, np.arange(len(values)), 0))
    return _undo_differences(values, position, run_owner), run_owner, position


def _undo_differences(values: np.ndarray, position: np.ndarray, owner: np.ndarray) -> np.ndarray:
    # Chains of runs linked by differences: 1, 3, 5, ... and 2, 4, 6, ...; run 0 stands alone.
    chain = owner * 3 + np.where(position == 0, 0, 1 + position % 2)
    order = np.argsort(chain, kind="stable")
    ordered = chain[order]
    sums = np.cumsum(values[order])
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    base = np.where(first, sums - values[order], 0)
    head = np.maximum.accumulate(np.where(first, np.arange(len(sums)), 0))
    runs = np.empty_like(values)
    runs[order] = sums - base[head]
    return runs


def boxes_of(masks: MaskColumn, sizes: np.ndarray) -> np.ndarray:
    """``[N, 4]`` float64 ``x y w h`` boxes around masks; ``sizes`` is ``[N, 2]`` (height, width)."""
    boxes = np.zeros((len(masks), 4), dtype=np.float64)
    for start in range(0, len(masks), _CHUNK_MASKS):
        rows = range(start, min(start + _CHUNK_MASKS, len(masks)))
        boxes[start : start + len(rows)] = mask_utils.toBbox([as_rle(masks[row], sizes[row]) for row in rows])
    return boxes


def as_rle(counts: bytes, size: np.ndarray) -> dict[str, Any]:
    """pycocotools' form of one mask; ``size`` is (height, width)."""
    return {"size": [int(size[0]), int(size[1])], "counts": counts}
