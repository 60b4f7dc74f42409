"""Lists of records in a JSON object, found in one pass over the bytes and read record by record.

An annotation file of a gigabyte would be six as Python objects. Here a pass that only follows brackets and strings
notes where each record lies; records are then read one at a time, by the quick and strict reader of msgspec, and what
that one refuses by Python's own, which alone decides what is valid and says what is wrong.
"""

from __future__ import annotations

import json
import mmap
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from aegl.errors import DataError
from aegl.progress import Progress, SilentProgress

_OPENING, _CLOSING = b"{[", b"}]"
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = rb'[^{}\[\]"]*+(?:' + _STRING + rb'[^{}\[\]"]*+)*+'
"""Anything without brackets outside of strings."""
_NEXT = re.compile(_FLAT + rb'([{}\[\]"]|\Z)', re.DOTALL)
"""Up to the next bracket; stops at a quote that is never closed, and at the end."""
_INNER = rb"[{\[]" + _FLAT + rb"[}\]]"
_OUTER = rb"[{\[]" + _FLAT + rb"(?:" + _INNER + _FLAT + rb")*+[}\]]"
_NEXT_RECORD = re.compile(rb"\s*+,\s*+(\{" + _FLAT + rb"(?:" + _OUTER + _FLAT + rb")*+\})", re.DOTALL)
"""A comma and a record no deeper than annotations are: a list of lists in it. Only a short cut, for speed."""
_KEY = re.compile(rb"\s*(" + _STRING + rb")\s*:\s*", re.DOTALL)
_SCALAR = re.compile(_STRING + rb'|[^\s,{}\[\]":]++', re.DOTALL)
_SPACE = re.compile(rb"\s*")
_BOM = b"\xef\xbb\xbf"
_MEGABYTE = 2**20
_TELL_EVERY = 8 * _MEGABYTE
_decode = json.JSONDecoder().decode
_decode_strictly = msgspec.json.Decoder().decode

Span = tuple[int, int]


class JsonTable:
    """The records of one list; every iteration reads them anew.

    Args:
        file: the file.
        spans: ``[2 R]`` where each record begins and ends, in bytes.
    """

    def __init__(self, file: JsonTables, spans: Sequence[int]) -> None:
        self._file = file
        self._spans = spans

    def __len__(self) -> int:
        """Number of records ``R``."""
        return len(self._spans) // 2

    def __iter__(self) -> Iterator[Any]:
        """The records. Raises :class:`DataError` at one that is no valid JSON, with line and column."""
        read, spans = self._file.read, self._spans
        for k in range(0, len(spans), 2):
            yield read(spans[k], spans[k + 1])


class JsonTables:
    """Those members of a JSON object that are lists.

    Args:
        path: the file, in UTF-8.
        names: keys of the lists wanted; what stands under others is passed over.
        progress: told how many megabytes have been passed.

    Raises:
        DataError: if the file cannot be read, is no JSON (with line and column), no object, or lacks a list.
    """

    def __init__(self, path: Path, names: Sequence[str], progress: Progress | None = None) -> None:
        self._path = path
        self._names = names
        self._progress = progress or SilentProgress()
        self._passed = 0
        self._tables: dict[str, JsonTable] = {}
        self._data = self._map()
        start = self._after_space(len(_BOM) if self._data[: len(_BOM)] == _BOM else 0)
        if self._data[start : start + 1] != b"{":
            self._refuse_whole()
        self._progress.start(f"look through {path.name}", len(self._data) // _MEGABYTE, "megabyte")
        self._pass_members(start + 1)
        self._tell(len(self._data))
        self._progress.finish()
        for name in names:
            if name not in self._tables:
                raise DataError(
                    f"{path}: has no list `{name}`; COCO and LVIS files have {', '.join(names[:-1])} and {names[-1]}"
                )

    def __getitem__(self, name: str) -> JsonTable:
        """The list under a key."""
        return self._tables[name]

    def read(self, start: int, stop: int) -> Any:
        """The value between two bytes. Raises :class:`DataError` if it is no valid JSON."""
        text = self._data[start:stop]
        try:
            return _decode_strictly(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # NaN, say, which JSON does not know
            return self._parse(text, start)

    def _map(self) -> mmap.mmap | bytes:
        try:
            with self._path.open("rb") as stream:
                try:
                    return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                except ValueError:  # an empty file has nothing to map
                    return b""
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror})") from error

    def _refuse_whole(self) -> None:
        """Say what a file holds that is no object."""
        content = self._parse(bytes(self._data), 0)
        raise DataError(f"{self._path}: holds a {type(content).__name__}, not the tables {', '.join(self._names)}")

    def _pass_members(self, at: int) -> None:
        """Go through ``"key": value, ...}`` and what follows."""
        at = self._after_space(at)
        if self._data[at : at + 1] == b"}":
            return self._expect_end(at + 1)
        while True:
            found = _KEY.match(self._data, at)
            if found is None:
                raise self._invalid(
                    self._after_space(at), "Expecting property name enclosed in double quotes, and a colon after it"
                )
            key = self._parse(found[1], found.start(1))
            at = self._pass_value(found.end(), key if key in self._names else None)
            at = self._after_space(at)
            following = self._data[at : at + 1]
            if following == b"}":
                return self._expect_end(at + 1)
            if following != b",":
                raise self._invalid(at, "Expecting ',' delimiter")
            at += 1

    def _expect_end(self, at: int) -> None:
        at = self._after_space(at)
        if at != len(self._data):
            raise self._invalid(at, "Extra data")

    def _pass_value(self, at: int, name: str | None) -> int:
        """Where a value ends that begins here; the records of a wanted list are noted."""
        first = self._data[at : at + 1]
        if name is not None and first == b"[":
            if name in self._tables:
                raise DataError(f"{self._path}: has two lists `{name}`")
            spans, end = self._pass_list(at + 1)
            self._tables[name] = JsonTable(self, spans)
            return end
        if first and first in _OPENING:
            end = self._pass_container(at)
            self.read(at, end)  # only to see that it is valid
            return end
        found = _SCALAR.match(self._data, at)
        if found is None:
            raise self._invalid(at, "Expecting value")
        self._parse(found[0], at)
        return found.end()

    def _pass_list(self, at: int) -> tuple[array[int], int]:
        """Spans of the elements of a list whose inside begins here, and where the list ends."""
        spans = array("q")
        gap = at
        while True:
            found = next(_NEXT.finditer(self._data, gap))  # there is always one, at the end at the latest
            bracket, begin = found[1], found.start(1)
            if bracket == b"]":
                self._note_gap(spans, gap, begin, followed=False)
                return spans, begin + 1
            if not bracket or bracket not in _OPENING:
                raise self._unexpected(bracket, begin)
            self._note_gap(spans, gap, begin, followed=True)
            gap = self._pass_container(begin)
            spans.extend((begin, gap))
            while following := _NEXT_RECORD.match(self._data, gap):
                spans.extend(following.span(1))
                gap = following.end()
                self._tell_now_and_then(gap)

    def _note_gap(self, spans: array[int], start: int, stop: int, *, followed: bool) -> None:
        """What stands between two records: a comma; or plain values, which are no records but have their place."""
        between = self._data[start:stop].strip()
        if between == (b"," if spans and followed else b""):
            return
        # The neighbours as zeros make it a list of which JSON itself says whether it is one.
        before, after = (b"0" if spans else b""), (b"0" if followed else b"")
        self._parse(b"[" + before + self._data[start:stop] + after + b"]", start - 1 - len(before))
        spans.extend(p for found in _SCALAR.finditer(self._data, start, stop) for p in found.span())

    def _pass_container(self, at: int) -> int:
        """Where the object or list ends that begins here."""
        depth = 0
        for found in _NEXT.finditer(self._data, at):
            bracket = found[1]
            if bracket and bracket in _OPENING:
                depth += 1
            elif bracket and bracket in _CLOSING:
                depth -= 1
                if not depth:
                    self._tell_now_and_then(found.end())
                    return found.end()
            else:
                raise self._unexpected(bracket, found.start(1))
        raise self._unexpected(b"", len(self._data))

    def _unexpected(self, found: bytes, at: int) -> DataError:
        reason = {b"": "Expecting value", b'"': "Unterminated string"}.get(found, "Expecting ',' delimiter")
        return self._invalid(at, reason)

    def _tell_now_and_then(self, at: int) -> None:
        if at - self._passed >= _TELL_EVERY:
            self._tell(at)

    def _tell(self, at: int) -> None:
        self._progress.update(at // _MEGABYTE - self._passed // _MEGABYTE)
        self._passed = at

    def _after_space(self, at: int) -> int:
        found = _SPACE.match(self._data, at)
        return at if found is None else found.end()

    def _parse(self, text: bytes, offset: int) -> Any:
        """Read a value that begins at a byte of the file."""
        try:
            return _decode(text.decode("utf-8", "surrogatepass"))
        except json.JSONDecodeError as error:
            raise self._invalid(
                offset + len(error.doc[: error.pos].encode("utf-8", "surrogatepass")), error.msg
            ) from error
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path}: not a text file, so no JSON (byte {offset + error.start})") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self._path}: no JSON of annotations ({error})") from error

    def _invalid(self, at: int, reason: str) -> DataError:
        before = self._data[:at]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        return DataError(
            f"{self._path}: not valid JSON (line {line}, column {column}: {reason}); is the file cut short?"
        )
