from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.metrics import DetectionTable, evaluate

BANDS = ("r", "c", "f")


def _bands(dataset: dict[str, Any]) -> np.ndarray:
    return np.array([BANDS.index(c["frequency"]) for c in dataset["categories"]])


def _score(dataset: dict[str, Any], store: Any, table: DetectionTable, iou_type: str) -> Any:
    return evaluate(store, table, protocol="lvis", iou_type=iou_type, class_band=_bands(dataset), band_names=BANDS)


def _assert_equal(ours: Any, official: Any) -> None:
    np.testing.assert_allclose(ours.precision, official.eval["precision"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall[..., -1], official.eval["recall"], rtol=0, atol=1e-12)
    for name, value in official.results.items():
        figure = ours.summary[name.split("@")[0]]
        assert (-1 if figure is None else figure) == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("boxes", [True, False])
def test_equals_the_official_package(
    iou_type: str, boxes: bool, make_dataset: Any, make_results: Any, store_of: Any, table_of: Any, official_lvis: Any
) -> None:
    dataset = make_dataset(seed=3, num_images=14)
    results = make_results(dataset, seed=4, boxes=boxes)
    store = store_of(dataset)
    ours = _score(dataset, store, table_of(results, store), iou_type)
    assert ours.summary["AP"] is not None and 0 < ours.summary["AP"] < 1
    _assert_equal(ours, official_lvis(dataset, results, iou_type))


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
    official_lvis: Any,
) -> None:
    dataset = make_dataset(seed, num_images, num_classes)
    results = make_results(dataset, seed + 1, masks=False)
    results.append({"image_id": dataset["images"][-1]["id"], "category_id": 10, "score": 0.5, "bbox": [0, 0, 9, 9]})
    store = store_of(dataset)
    _assert_equal(_score(dataset, store, table_of(results, store), "bbox"), official_lvis(dataset, results, "bbox"))


def test_only_the_300_best_detections_of_an_image_count(
    make_dataset: Any, make_results: Any, store_of: Any, table_of: Any, official_lvis: Any
) -> None:
    dataset = make_dataset(seed=5, num_images=3)
    results = make_results(dataset, seed=6, masks=False, strays=900)
    per_image = np.unique([r["image_id"] for r in results], return_counts=True)[1]
    assert per_image.max() > 300
    store = store_of(dataset)
    table = table_of(results, store)
    _assert_equal(_score(dataset, store, table, "bbox"), official_lvis(dataset, results, "bbox"))
    cut = table.top_per_image(300)
    assert np.bincount(cut.image_index).max() == 300
    np.testing.assert_array_equal(
        _score(dataset, store, cut, "bbox").precision, _score(dataset, store, table, "bbox").precision
    )


def test_ground_truth_as_predictions_is_perfect(make_dataset: Any, store_of: Any, table_of: Any) -> None:
    dataset = make_dataset(seed=7)
    for ann in dataset["annotations"]:
        ann["ignore"] = 0
    keys = ("image_id", "category_id", "bbox", "segmentation")
    store = store_of(dataset)
    table = table_of([{k: a[k] for k in keys} | {"score": 1.0} for a in dataset["annotations"]], store)
    for iou_type in ("bbox", "segm"):
        assert _score(dataset, store, table, iou_type).summary["AP"] == pytest.approx(1.0, abs=1e-9)


def _one_image(negative: list[int], not_exhaustive: list[int]) -> dict[str, Any]:
    image = {"id": 1, "height": 100, "width": 100, "file_name": "1.jpg"}
    image |= {"neg_category_ids": negative, "not_exhaustive_category_ids": not_exhaustive}
    box = [10.0, 10.0, 50.0, 50.0]
    categories = [{"id": c, "name": str(c), "frequency": "r"} for c in (1, 2)]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 2500.0}
    far = {"id": 2, "image_id": 2, "category_id": 2, "bbox": box, "area": 2500.0}
    second = image | {"id": 2, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    return {"images": [image, second], "annotations": [annotation, far], "categories": categories}


@pytest.mark.parametrize(
    ("category", "negative", "not_exhaustive", "ap"),
    [
        pytest.param(2, [2], [], 0.5, id="a class known to be absent is a false positive"),
        pytest.param(2, [], [], 1.0, id="a class not looked for does not count"),
        pytest.param(1, [], [], 0.5, id="an unmatched detection of a present class is a false positive"),
        pytest.param(1, [], [1], 1.0, id="an unmatched detection of a sloppily annotated class is ignored"),
    ],
)
def test_federated_rules(
    category: int, negative: list[int], not_exhaustive: list[int], ap: float, store_of: Any, table_of: Any
) -> None:
    dataset = _one_image(negative, not_exhaustive)
    box = dataset["annotations"][0]["bbox"]
    results = [
        {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": box},
        {"image_id": 2, "category_id": 2, "score": 0.5, "bbox": box},
        {"image_id": 1, "category_id": category, "score": 0.9, "bbox": [80.0, 80.0, 15.0, 15.0]},
    ]
    store = store_of(dataset)
    ours = _score(dataset, store, table_of(results, store), "bbox")
    assert ours.per_class[category - 1] == pytest.approx(ap, abs=1e-9)


def test_ground_truth_without_negative_sets_is_exhaustive(store_of: Any, table_of: Any) -> None:
    dataset = _one_image([], [])
    for image in dataset["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    box = dataset["annotations"][0]["bbox"]
    results = [
        {"image_id": 2, "category_id": 2, "score": 0.5, "bbox": box},
        {"image_id": 1, "category_id": 2, "score": 0.9, "bbox": box},
    ]
    store = store_of(dataset)
    assert _score(dataset, store, table_of(results, store), "bbox").per_class[1] == pytest.approx(0.5, abs=1e-9)
