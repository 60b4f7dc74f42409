"""The class table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegl.data.categories import CategoryTable

RECORDS = [
    {"id": 7, "name": "bee", "frequency": "f", "image_count": 3, "instance_count": 4},
    {"id": 2, "name": "ant", "frequency": "r", "image_count": 1, "instance_count": 2},
]


def test_classes_lie_in_the_order_of_their_ids() -> None:
    table = CategoryTable.from_records(RECORDS)
    assert table.ids.tolist() == [2, 7] and table.names == ("ant", "bee") and len(table) == 2
    assert table.frequency == ("r", "f")
    assert table.image_counts is not None and table.image_counts.tolist() == [1, 3]
    assert table.instance_counts is not None and table.instance_counts.tolist() == [2, 4]


def test_a_field_counts_only_if_every_class_has_it() -> None:
    table = CategoryTable.from_records([RECORDS[0], {"id": 2, "name": "ant", "frequency": None}])
    assert table.frequency is None and table.image_counts is None and table.instance_counts is None


def test_a_class_without_a_name_is_called_by_its_id() -> None:
    table = CategoryTable.from_records([{"id": 3}, {"id": 4, "name": None}, {"id": 5, "name": 6}])
    assert table.names == ("3", "4", "6")


@given(st.lists(st.integers(-(2**62), 2**62), unique=True, max_size=30), st.lists(st.integers(-9, 9), max_size=9))
def test_labels_are_places_and_unknown_ids_have_none(ids: list[int], others: list[int]) -> None:
    table = CategoryTable.from_records([{"id": key} for key in ids])
    ordered = sorted(ids)
    asked = ids + others
    labels = table.labels_of(np.asarray(asked, dtype=np.int64))
    assert labels.dtype == np.int64
    assert labels.tolist() == [ordered.index(key) if key in ordered else -1 for key in asked]


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("frequency", [True, False])
def test_json_and_back(frequency: bool, counts: bool) -> None:
    kept = {"frequency": frequency, "image_count": counts, "instance_count": counts}
    records = [{key: value for key, value in record.items() if kept.get(key, True)} for record in RECORDS]
    table = CategoryTable.from_records(records)
    again = CategoryTable.from_dict(json.loads(json.dumps(table.to_dict())))
    assert again.to_dict() == table.to_dict() and again.ids.dtype == np.int64
    assert (again.frequency is None) == (not frequency) and (again.image_counts is None) == (not counts)
