"""Records read one by one are those that Python's JSON reader finds, and what it refuses is refused at its place."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aegl.data.json_tables import JsonTables
from aegl.errors import DataError
from aegl.progress import SilentProgress

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)
objects = st.fixed_dictionaries({"a": st.lists(values, max_size=6), "b": st.lists(values, max_size=3)}, optional={
    "x": values, 'quote"': values, "back\\": values,
})  # fmt: skip
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)


def read(path: Path, text: str | bytes) -> dict[str, list[Any]]:
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    tables = JsonTables(path, ("a", "b"))
    found = {name: list(tables[name]) for name in ("a", "b")}
    assert {name: len(tables[name]) for name in found} == {name: len(rows) for name, rows in found.items()}
    return found


@shared_folder
@given(content=objects, indent=st.sampled_from([None, 0, 3]), ascii_only=st.booleans())
def test_the_records_are_those_of_json(content: dict[str, Any], indent: Any, ascii_only: bool, tmp_path: Path) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
    assert read(tmp_path / "x.json", text) == {name: content[name] for name in ("a", "b")}


@shared_folder
@given(content=objects, data=st.data())
@example(content={"a": [{"k": 1}, {"k": 2}], "b": []}, data=None)
def test_damage_is_refused_exactly_where_json_refuses(content: dict[str, Any], data: Any, tmp_path: Path) -> None:
    text = json.dumps(content)
    if data is not None:
        at = data.draw(st.integers(0, len(text)))
        new = data.draw(st.sampled_from([*'{}[]",:\\ 0ne', ""]))
        text = text[:at] + new + text[at + data.draw(st.integers(0, 3)) :]
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(DataError):
            read(tmp_path / "x.json", text)
        return
    usable = isinstance(expected, dict) and all(isinstance(expected.get(name), list) for name in ("a", "b"))
    keys = re.findall(r'"([ab])":', text)
    if usable and len(keys) == 2:
        assert read(tmp_path / "x.json", text) == {name: expected[name] for name in ("a", "b")}
    elif not usable:
        with pytest.raises(DataError):
            read(tmp_path / "x.json", text)


_TRAILING_COMMA = 16 if sys.version_info >= (3, 13) else 17
"""Python points at the comma since 3.13, before at what follows it."""


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ('{"a": [{"k": 1} {"k": 2}], "b": []}', 1, 17, "Expecting ',' delimiter"),
        ('{"a": [{"k": 1},], "b": []}', 1, _TRAILING_COMMA, ""),
        ('{"a": [,{"k": 1}], "b": []}', 1, 8, "Expecting value"),
        ('{"a": [\n{"k": 1},\n{"k": nan}], "b": []}', 3, 7, "Expecting value"),
        ('{"a": [\n{"ö": 1, "k": 1e}], "b": []}', 2, 16, "Expecting ',' delimiter"),
        ('{"a": [], "b": [{"k": "x}]}', 1, 23, "Unterminated string"),
        ('{"a": [], "b": [}', 1, 17, "Expecting ',' delimiter"),
        ('{"a": [], "b": [] "c": 1}', 1, 19, "Expecting ',' delimiter"),
        ('{"a": [], b: []}', 1, 11, "Expecting property name"),
        ('{"a": [], "info": {"k" 1}, "b": []}', 1, 24, "Expecting ':' delimiter"),
        ('{"a": [], "b": []}\n}', 2, 1, "Extra data"),
    ],
)
def test_the_place_of_a_mistake_is_told(text: str, line: int, column: int, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / "x.json", text)
    assert f"not valid JSON (line {line}, column {column}: {reason}" in str(caught.value)


def test_a_list_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has two lists `a`"):
        read(tmp_path / "x.json", '{"a": [], "b": [], "a": []}')


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert read(tmp_path / "x.json", b"\xef\xbb\xbf" + b'{"a": [1], "b": []}') == {"a": [1], "b": []}


def test_a_byte_that_is_no_text_is_told_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a text file, so no JSON \(byte 9\)"):
        read(tmp_path / "x.json", b'{"a": ["\xc3\xff"], "b": []}'.replace(b"\xc3", b"x"))


def test_an_unclosed_quote_in_a_long_file_is_found_in_linear_time(tmp_path: Path) -> None:
    record = '{"k": [' + "1, " * 200_000 + "1]}"
    with pytest.raises(DataError, match="not valid JSON"):
        read(tmp_path / "x.json", f'{{"a": [{record}, {{"k": "x}}, {record}], "b": []}}')


def test_the_records_can_be_read_again(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": [1, {"k": 2}], "b": []}')
    table = JsonTables(tmp_path / "x.json", ("a", "b"))["a"]
    assert list(table) == list(table) == [1, {"k": 2}]


def test_progress_is_told_in_megabytes(tmp_path: Path) -> None:
    told = []

    class Told(SilentProgress):
        def start(self, name: str, total: int | None, unit: str) -> None:
            told.append(total)

        def update(self, n: int = 1, **fields: float | str) -> None:
            told.append(n)

    record = json.dumps({"k": "x" * 2**20})
    (tmp_path / "x.json").write_text(f'{{"a": [{", ".join([record] * 20)}], "b": []}}')
    JsonTables(tmp_path / "x.json", ("a", "b"), Told())
    assert told[0] == 20 and 16 <= sum(told[1:]) <= 20
