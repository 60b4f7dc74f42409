import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegl.errors import DataError
from aegl.metrics import DetectionTable, DetectionTableBuilder


def _assert_same(a: DetectionTable, b: DetectionTable) -> None:
    for name in ("image_index", "label", "score", "boxes_xywh_orig"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    assert a.boxes_given == b.boxes_given
    assert (a.masks is None) == (b.masks is None)
    if a.masks is not None and b.masks is not None:
        assert [a.masks[i] for i in range(len(a))] == [b.masks[i] for i in range(len(b))]


@pytest.fixture
def case(make_dataset: Any, make_results: Any, store_of: Any) -> tuple[Any, list[dict[str, Any]]]:
    dataset = make_dataset(seed=20, num_images=4)
    return store_of(dataset), make_results(dataset, seed=21)


@pytest.mark.parametrize(("boxes", "masks"), [(True, True), (True, False), (False, True)])
def test_json_round_trips_are_exact(
    boxes: bool, masks: bool, tmp_path: Path, make_dataset: Any, make_results: Any, store_of: Any, table_of: Any
) -> None:
    dataset = make_dataset(seed=20, num_images=4)
    store = store_of(dataset)
    table = table_of(make_results(dataset, seed=21, boxes=boxes, masks=masks), store)
    assert (table.boxes_given, table.masks is not None) == (boxes, masks)
    table.to_results_json(tmp_path / "again.json", store)
    _assert_same(DetectionTable.from_results_json(tmp_path / "again.json", store), table)


def test_an_empty_file_gives_an_empty_table(tmp_path: Path, case: Any) -> None:
    (tmp_path / "none.json").write_text("[]")
    assert len(DetectionTable.from_results_json(tmp_path / "none.json", case[0])) == 0


def _without(key: str) -> Any:
    return lambda record: record.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(image_id=999), "image_id 999, which the ground truth lacks"),
        (lambda r: r.update(image_id=[1]), r"image_id \[1\]"),
        (_without("image_id"), "has no image_id"),
        (lambda r: r.update(category_id=7), "category_id 7, which"),
        (_without("score"), "has no score"),
        (lambda r: r.update(score=float("nan")), "score nan, not a finite number"),
        (lambda r: r.update(score="high"), "score 'high', not a finite number"),
        (_without("bbox"), "has no bbox"),
        (lambda r: r.update(bbox=[1, 2, 3]), "not a list of 4 finite numbers"),
        (lambda r: r.update(bbox=[1, 2, 3, float("inf")]), "not a list of 4 finite numbers"),
        (_without("segmentation"), "neither a list of polygons nor an RLE"),
        (lambda r: r["segmentation"].update(size=[3, 3]), r"size is \[3, 3\]"),
        (lambda r: r["segmentation"].update(counts="52"), "counts cover 7 pixels"),
        (lambda r: r["segmentation"].update(counts="ü"), "counts "),
    ],
)
def test_a_bad_record_is_named(change: Any, message: str, tmp_path: Path, case: Any) -> None:
    store, results = case
    change(results[3])
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(results))
    with pytest.raises(DataError, match=f"bad.json: record 3:? .*{message}"):
        DetectionTable.from_results_json(path, store)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "corrupt JSON"),
        ("{}", "a results file is a list"),
        ("[1]", "record 0 is no detection but 1"),
        ('[{"image_id": 1, "category_id": 10, "score": 1}]', "neither bbox nor segmentation"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_file_is_named(text: str | None, message: str, tmp_path: Path, case: Any) -> None:
    store, _ = case
    store.image_ids[0] = 1
    path = tmp_path / "bad.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=f"bad.json: .*{message}"):
        DetectionTable.from_results_json(path, store)


def test_builder_and_merging() -> None:
    parts = []
    for rank in range(2):
        builder = DetectionTableBuilder(with_masks=True)
        for image in (rank, rank + 2):
            boxes = np.arange(8, dtype=np.float32).reshape(2, 4)
            builder.append(image, np.array([1, 0]), np.array([0.5, 0.25], np.float32), boxes, [b"5", b"05"])
        builder.append(5, np.zeros(0), np.zeros(0), np.zeros((0, 4)), [])
        parts.append(builder.build())
    table = DetectionTable.concatenate([*parts, DetectionTableBuilder(with_masks=True).build()])
    assert table.image_index.tolist() == [0, 0, 2, 2, 1, 1, 3, 3]
    assert table.score.dtype == np.float64
    assert table.masks is not None and [table.masks[i] for i in range(8)] == [b"5", b"05"] * 4
    assert table.take(np.array([5, 0])).masks.counts(slice(None)) == [b"05", b"5"]  # type: ignore[union-attr]


def test_builder_refuses_what_does_not_fit() -> None:
    builder = DetectionTableBuilder(with_masks=False)
    with pytest.raises(ValueError, match="differ in length"):
        builder.append(0, np.zeros(2), np.zeros(1), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="with_masks=False"):
        builder.append(0, np.zeros(1), np.zeros(1), np.zeros((1, 4)), [b"5"])
    assert len(builder.build()) == 0


def test_tables_with_and_without_masks_do_not_merge() -> None:
    tables = []
    for masks in (None, [b"5"]):
        builder = DetectionTableBuilder(with_masks=masks is not None)
        builder.append(0, np.zeros(1), np.ones(1), np.ones((1, 4)), masks)
        tables.append(builder.build())
    with pytest.raises(DataError, match="cannot be merged"):
        DetectionTable.concatenate(tables)
    assert len(DetectionTable.concatenate([])) == 0


def test_top_per_image_keeps_the_earlier_of_equal_scores() -> None:
    builder = DetectionTableBuilder(with_masks=False)
    builder.append(1, np.arange(4), np.array([0.5, 0.9, 0.5, 0.5]), np.ones((4, 4)))
    builder.append(0, np.arange(2), np.array([0.1, 0.2]), np.ones((2, 4)))
    cut = builder.build().top_per_image(2)
    assert cut.image_index.tolist() == [1, 1, 0, 0]
    assert cut.label.tolist() == [0, 1, 0, 1]
