"""A JSON file that holds one long list, read in stretches: memory stays bounded whatever the size of the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

_STRETCH = 1 << 18
_LOOK_AHEAD = 1 << 14
_BETWEEN_RECORDS = re.compile(rb"\}\s*(,)\s*\{")
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[{}\[\],]', re.DOTALL)
"""The last string may be cut short."""

Part = TypeVar("Part")


def likely_cuts(path: Path) -> list[int]:
    """Where a file can be cut into stretches for :func:`read_stretch`: its begin, commas between records, its end.

    A comma may turn out to lie in a string or a deeper list. The stretch before it is then no JSON; so as long as
    stretches are, every cut up to there was right.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        places = {_next_cut(file, place, size) for place in range(_STRETCH, size, _STRETCH)}
    return sorted(places | {0, size})


def read_stretch(path: Path, start: int, stop: int) -> bytearray:
    """The text of a JSON list of the records between two cuts."""
    text = bytearray(stop - start + 1)
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, 2)
        file.seek(start)
        file.readinto(memoryview(text)[:-1])
    if start:
        text[0] = ord("[")
    text[-1] = ord("]" if stop < size else " ")
    return text


def _next_cut(file: BinaryIO, place: int, size: int) -> int:
    length = _LOOK_AHEAD
    while True:
        file.seek(place)
        text = file.read(length)
        if between := _BETWEEN_RECORDS.search(text):
            return place + between.start(1)
        if place + length >= size:
            return size
        length *= 4


def stream_list(path: Path, start: int, decode: Callable[[bytes], Part]) -> Iterator[Part]:
    """What ``decode`` makes of the records from a right cut on; slower, and right for every file.

    Args:
        path: a file that holds a list of objects.
        start: the cut.
        decode: given the text of a list of some records; must raise ``ValueError`` if it is no JSON.

    Raises:
        ValueError: if the file is no JSON.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        file.seek(start + 1 if start else 0)
        text = b"[" if start else b""
        while block := file.read(_STRETCH):
            text += block
            cut = _last_cut(text)
            if cut is not None:
                yield decode(text[:cut] + b"]")
                text = b"[" + text[cut + 1 :]
        yield decode(text)


def _last_cut(text: bytes) -> int | None:
    """Where the last comma between two records is, found by reading every token."""
    depth, comma, cut = 0, None, None
    for token in _TOKENS.finditer(text):
        symbol = token.group()
        if symbol in (b"{", b"["):
            if depth == 1 and comma is not None:
                cut = comma
            depth += 1
        elif symbol in (b"}", b"]"):
            depth -= 1
        elif symbol == b"," and depth == 1:
            comma = token.start()
    return cut
