"""Results files read in stretches: the same as read in one go, whatever they hold and wherever they are cut."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aegl.errors import DataError
from aegl.metrics import DetectionTable, json_stream, parallel
from aegl.metrics.rle import encode
from aegl.progress import SilentProgress

Json = dict[str, Any]


class Counting(SilentProgress):
    """Remembers the amounts it was told of."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0

    def start(self, name: str, total: int | None, unit: str) -> None:
        self.total = total

    def update(self, n: int = 1, **fields: float | str) -> None:
        self.done += n


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many stretches even of small files."""
    monkeypatch.setattr(json_stream, "_STRETCH", 700)
    monkeypatch.setattr(json_stream, "_LOOK_AHEAD", 30)


def _assert_same(a: DetectionTable, b: DetectionTable) -> None:
    for name in ("image_index", "label", "score", "boxes_xywh_orig"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    assert a.boxes_given == b.boxes_given
    assert (a.masks is None) == (b.masks is None)
    if a.masks is not None and b.masks is not None:
        assert a.masks.counts(slice(None)) == b.masks.counts(slice(None))


def _stream(path: Path, start: int = 0) -> list[Any]:
    def decode(text: bytes) -> list[Any]:
        records = json.loads(text)
        assert isinstance(records, list)
        return records

    return [record for part in json_stream.stream_list(path, start, decode) for record in part]


odd_text = st.text(alphabet='{}[],:"\\ \n aé', max_size=12)
odd_values = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | odd_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.dictionaries(odd_text, odd_values, max_size=3), max_size=12),
    stretch=st.integers(1, 60),
    indent=st.sampled_from([None, 0, 2]),
)
def test_a_stream_gives_the_records_of_the_list(
    records: list[Json], stretch: int, indent: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps(records, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_STRETCH", stretch)
        assert _stream(path) == records


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.dictionaries(odd_text, odd_values, max_size=3), max_size=12),
    stretch=st.integers(1, 60),
    look_ahead=st.integers(1, 60),
    indent=st.sampled_from([None, 0, 2]),
)
def test_stretches_are_json_up_to_the_first_wrong_cut(
    records: list[Json], stretch: int, look_ahead: int, indent: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps(records, indent=indent))
    found: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_STRETCH", stretch)
        patch.setattr(json_stream, "_LOOK_AHEAD", look_ahead)
        for start, stop in itertools.pairwise(json_stream.likely_cuts(path)):
            try:
                found += json.loads(json_stream.read_stretch(path, start, stop))
            except ValueError:
                found += _stream(path, start)
                break
    assert found == records


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), stretch=st.integers(1, 60))
def test_a_list_cut_short_is_an_error(share: float, stretch: int, tmp_path: Path) -> None:
    text = json.dumps([{"a": [{"b": "},{"}, {"c": 1}]}, {"d": "]"}, {"e": None}])
    path = tmp_path / "list.json"
    path.write_text(text[: int(share * len(text))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_STRETCH", stretch)
        with pytest.raises(ValueError):
            _stream(path)


@pytest.mark.parametrize(("boxes", "masks"), [(True, True), (True, False), (False, True)])
def test_stretches_join_to_what_one_stretch_gives(
    boxes: bool, masks: bool, tmp_path: Path, make_dataset: Any, make_results: Any, store_of: Any, table_of: Any
) -> None:
    dataset = make_dataset(seed=60)
    store = store_of(dataset)
    results = make_results(dataset, seed=61, boxes=boxes, masks=masks)
    whole = table_of(results, store)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results, indent=1))
    progress = Counting()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_STRETCH", 700)
        _assert_same(DetectionTable.from_results_json(path, store, progress), whole)
    assert progress.total == 1 and progress.done == 1


def _polygon(record: Json) -> None:
    x, y, w, h = record["bbox"]
    record["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]


UNUSUAL = {
    "whole numbers as decimals": lambda r: r.update(image_id=float(r["image_id"]), category_id=float(r["category_id"])),
    "polygons": _polygon,
    "sizes as decimals": lambda r: r["segmentation"].update(size=[float(v) for v in r["segmentation"]["size"]]),
    "a nested list of objects": lambda r: r.update(extra=[{"a": 1}, {"b": "},{"}]),
    "NaN where it does not matter": lambda r: r.update(extra=float("nan")),
    "a score that is a whole number": lambda r: r.update(score=1),
}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("change", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_records_read_as_the_official_packages_read_them(
    change: Any, tmp_path: Path, make_dataset: Any, make_results: Any, store_of: Any
) -> None:
    dataset = make_dataset(seed=60)
    store = store_of(dataset)
    results = make_results(dataset, seed=61)
    for record in results[::3]:
        change(record)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    table = DetectionTable.from_results_json(path, store)
    assert store.image_ids[table.image_index].tolist() == [r["image_id"] for r in results]
    assert np.array(store.categories.ids)[table.label].tolist() == [r["category_id"] for r in results]
    assert table.score.tolist() == [r["score"] for r in results]
    assert table.boxes_xywh_orig.tolist() == [r["bbox"] for r in results]
    for row, record in enumerate(results):
        if isinstance(record["segmentation"], dict):
            assert table.masks is not None and table.masks[row].decode() == record["segmentation"]["counts"]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("processes", [1, 2])
def test_masks_that_are_longer_than_their_text_arrive(
    processes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_dataset: Any, make_results: Any, store_of: Any
) -> None:
    monkeypatch.setattr(parallel, "_processes", lambda: processes)
    dataset = make_dataset(seed=60)
    store = store_of(dataset)
    results = make_results(dataset, seed=61)
    for record in results[: len(results) // 2]:
        record["segmentation"] = [[0, 0, 99, 9, 3, 99]]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    table = DetectionTable.from_results_json(path, store)
    sizes = store.image_sizes[table.image_index].tolist()
    wanted = [encode(record["segmentation"], *size) for record, size in zip(results, sizes, strict=True)]
    assert sum(map(len, wanted[:8])) > len(json.dumps(results[:8]))
    assert table.masks is not None and table.masks.counts(slice(None)) == wanted


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("number", [0, 17, 40])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(image_id=10**30), "image_id 1000000000000000000000000000000, which"),
        (lambda r: r.update(category_id="person"), "category_id 'person', which"),
        (lambda r: r.update(score=None), "has no score"),
        (lambda r: r["bbox"].__setitem__(2, float("nan")), "not a list of 4 finite numbers"),
        (lambda r: r["segmentation"].update(size=[1, 2]), r"size is \[1, 2\]"),
        (lambda r: r["segmentation"].update(counts="0"), "counts cover 0 pixels"),
        (lambda r: r["segmentation"].update(counts=r["segmentation"]["counts"][:-1] + "o"), "are no valid RLE"),
    ],
)
def test_a_bad_record_is_named_in_whatever_stretch_it_is(
    change: Any, message: str, number: int, tmp_path: Path, make_dataset: Any, make_results: Any, store_of: Any
) -> None:
    dataset = make_dataset(seed=60)
    results = make_results(dataset, seed=61)
    change(results[number])
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(results))
    with pytest.raises(DataError, match=f"bad.json: record {number} .*{message}"):
        DetectionTable.from_results_json(path, store_of(dataset))


@pytest.mark.usefixtures("small_blocks")
def test_a_file_cut_short_says_after_which_record(
    tmp_path: Path, make_dataset: Any, make_results: Any, store_of: Any
) -> None:
    dataset = make_dataset(seed=60)
    path = tmp_path / "cut.json"
    text = json.dumps(make_results(dataset, seed=61))
    path.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"cut.json: corrupt JSON after record \d+ \("):
        DetectionTable.from_results_json(path, store_of(dataset))


def test_a_results_file_appears_when_it_is_complete(
    tmp_path: Path, make_dataset: Any, make_results: Any, store_of: Any, table_of: Any
) -> None:
    dataset = make_dataset(seed=60)
    store = store_of(dataset)
    table = table_of(make_results(dataset, seed=61), store)
    path = tmp_path / "results.json"
    table.to_results_json(path, store)
    complete = path.read_bytes()
    table.score[-1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        table.to_results_json(path, store)
    assert path.read_bytes() == complete
