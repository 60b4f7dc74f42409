"""Compressed COCO run lengths in NumPy alone, to the byte as pycocotools writes them.

Runs go down the columns, background first. From a mask's fourth number on each is stored as its difference to the
number two before. A character holds five bits of a number, lowest first, and bit 5 says that more follow; the last
character's bit 4 is the sign.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

FIRST_SYMBOL = 48
"""The character of zero."""
MOST_SYMBOLS = 7
"""35 bits: run lengths are of 32, their differences of 33."""


def to_counts(runs: Sequence[np.ndarray]) -> list[bytes]:
    """The ``counts`` strings of masks, each given by its run lengths: one or more integers, none below zero."""
    lengths = np.array([len(mask) for mask in runs], dtype=np.int64)
    if not len(lengths):
        return []
    stops = np.cumsum(lengths)
    absolute = np.concatenate([np.asarray(mask, dtype=np.int64) for mask in runs])
    numbers = absolute.copy()
    numbers[2:] -= absolute[:-2]
    for nth in range(3):
        whole = (stops - lengths + nth)[lengths > nth]
        numbers[whole] = absolute[whole]
    # A number below zero needs as many digits as its complement; the last digit must have room for the sign.
    size = numbers ^ (numbers >> 63)
    largest = int(size.max(initial=0))
    bounds = itertools.takewhile(lambda bound: bound <= largest, (1 << (5 * digit - 1) for digit in itertools.count(1)))
    digits = np.ones(len(numbers), dtype=np.int64)
    for bound in bounds:
        digits += size >= bound
    ends = np.cumsum(digits)
    place = ends - digits
    text = np.empty(ends[-1], dtype=np.uint8)
    while len(place):
        more = digits > 1
        text[place] = (numbers & 31) + np.where(more, FIRST_SYMBOL + 32, FIRST_SYMBOL)
        place, numbers, digits = place[more] + 1, numbers[more] >> 5, digits[more] - 1
    cuts = [0, *ends[stops - 1].tolist()]
    joined = text.tobytes()
    return [joined[start:stop] for start, stop in itertools.pairwise(cuts)]


def run_lengths(counts: bytes | str) -> np.ndarray:
    """``[r]`` int64 run lengths of a ``counts`` string, which must be a valid one."""
    raw = counts.encode("ascii") if isinstance(counts, str) else counts
    symbols = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - FIRST_SYMBOL
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


def decode(rle: dict[str, Any]) -> np.ndarray:
    """``[h, w]`` bool mask of one ``{"size": [h, w], "counts": bytes or text}``."""
    height, width = rle["size"]
    runs = run_lengths(rle["counts"])
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
