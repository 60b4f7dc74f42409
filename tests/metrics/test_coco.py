from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.metrics import DetectionTable, evaluate

FIGURES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl"]


def _score(dataset: dict[str, Any], store: Any, table: DetectionTable, iou_type: str, **options: Any) -> Any:
    bands = np.zeros(len(dataset["categories"]), dtype=np.int64)
    return evaluate(store, table, protocol="coco", iou_type=iou_type, class_band=bands, band_names=("only",), **options)


def _assert_equal(ours: Any, official: Any) -> None:
    np.testing.assert_allclose(ours.precision, official.eval["precision"][..., -1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall, official.eval["recall"], rtol=0, atol=1e-12)
    figures = [ours.summary[name] for name in FIGURES]
    np.testing.assert_allclose([-1 if f is None else f for f in figures], official.stats, rtol=0, atol=1e-12)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("boxes", [True, False])
def test_equals_the_official_package(
    iou_type: str, boxes: bool, make_dataset: Any, make_results: Any, store_of: Any, table_of: Any, official_coco: Any
) -> None:
    dataset = make_dataset(seed=1, num_images=14)
    results = make_results(dataset, seed=2, boxes=boxes)
    store = store_of(dataset)
    ours = _score(dataset, store, table_of(results, store), iou_type)
    assert 0 < ours.summary["AP"] < 1
    assert any(a["iscrowd"] for a in dataset["annotations"])
    _assert_equal(ours, official_coco(dataset, results, iou_type))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_images=st.integers(2, 6), num_classes=st.integers(1, 6))
def test_equals_the_official_package_on_random_boxes(
    seed: int,
    num_images: int,
    num_classes: int,
    make_dataset: Any,
    make_results: Any,
    store_of: Any,
    table_of: Any,
    official_coco: Any,
) -> None:
    dataset = make_dataset(seed, num_images, num_classes)
    results = make_results(dataset, seed + 1, masks=False)
    results.append({"image_id": dataset["images"][-1]["id"], "category_id": 10, "score": 0.5, "bbox": [0, 0, 9, 9]})
    store = store_of(dataset)
    _assert_equal(_score(dataset, store, table_of(results, store), "bbox"), official_coco(dataset, results, "bbox"))


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_more_than_100_detections_of_a_class_and_many_objects(
    iou_type: str, make_dataset: Any, make_results: Any, store_of: Any, table_of: Any, official_coco: Any
) -> None:
    dataset = make_dataset(seed=11, num_images=3, num_classes=2, max_objects=60)
    results = make_results(dataset, seed=12, strays=400)
    store = store_of(dataset)
    table = table_of(results, store)
    assert np.bincount(table.image_index * 2 + table.label).max() > 100
    _assert_equal(_score(dataset, store, table, iou_type), official_coco(dataset, results, iou_type))


def test_annotation_id_zero_counts_as_the_official_package_counts_it(
    make_dataset: Any, make_results: Any, store_of: Any, table_of: Any, official_coco: Any, caplog: Any
) -> None:
    dataset = make_dataset(seed=1, num_images=4)
    for ann in dataset["annotations"]:
        ann["id"] -= 1
    results = make_results(dataset, seed=2, masks=False)
    store = store_of(dataset)
    _assert_equal(_score(dataset, store, table_of(results, store), "bbox"), official_coco(dataset, results, "bbox"))
    assert "id 0" in caplog.text


def test_a_crowd_takes_any_number_of_detections(store_of: Any, table_of: Any) -> None:
    box = [10.0, 10.0, 20.0, 20.0]
    crowd = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 90.0, 90.0], "area": 8100.0, "iscrowd": 1}
    one = {"id": 2, "image_id": 1, "category_id": 1, "bbox": [100.0, 100.0, 20.0, 20.0], "area": 400.0, "iscrowd": 0}
    dataset = {
        "images": [{"id": 1, "height": 200, "width": 200}],
        "annotations": [crowd, one],
        "categories": [{"id": 1, "name": "a"}],
    }
    results = [{"image_id": 1, "category_id": 1, "score": 0.9, "bbox": box}] * 3
    results.append({"image_id": 1, "category_id": 1, "score": 0.1, "bbox": one["bbox"]})
    store = store_of(dataset)
    assert _score(dataset, store, table_of(results, store), "bbox").summary["AP"] == pytest.approx(1.0)


def test_fewer_detections_than_the_recall_figures_ask_for(
    make_dataset: Any, make_results: Any, store_of: Any, table_of: Any
) -> None:
    dataset = make_dataset(seed=1)
    store = store_of(dataset)
    table = table_of(make_results(dataset, seed=2, masks=False), store)
    ours = _score(dataset, store, table, "bbox", max_det=5)
    assert ours.max_dets == (1, 5)
    assert ours.summary["AR1"] <= ours.summary["AR"]
