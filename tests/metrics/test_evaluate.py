import json
from typing import Any

import numpy as np
import pytest

from aegl.errors import ConfigError, DataError
from aegl.metrics import GroundTruth, evaluate, metrics_json, summary_json

OPTIONS: dict[str, Any] = {"protocol": "coco", "iou_type": "bbox", "band_names": ("tail", "head")}


@pytest.fixture
def case(make_dataset: Any, make_results: Any, store_of: Any, table_of: Any) -> tuple[Any, Any]:
    dataset = make_dataset(seed=30)
    store = store_of(dataset)
    return store, table_of(make_results(dataset, seed=31), store)


def _mean(values: np.ndarray) -> float:
    return float(values[values > -1].mean())


def test_bands_average_the_classes_of_each_band(case: Any) -> None:
    store, table = case
    band = np.array([0, 1, 1, 0, 1])
    result = evaluate(store, table, class_band=band, **OPTIONS)
    for index, name in enumerate(OPTIONS["band_names"]):
        assert result.summary[f"AP{name}"] == pytest.approx(np.nanmean(result.per_class[band == index]))
        assert result.bands[name]["AP"] == result.summary[f"AP{name}"]
        assert result.bands[name]["AP50"] == pytest.approx(_mean(result.precision[0, :, band == index, 0]))
        assert result.bands[name]["AR"] == pytest.approx(_mean(result.recall[:, band == index, 0, -1]))
    assert result.summary["AP"] == pytest.approx(np.nanmean(result.per_class))
    assert result.overall[0].mean() == pytest.approx(result.summary["AP50"])


def test_a_view_of_the_store_gives_the_same(case: Any) -> None:
    store, table = case
    options = OPTIONS | {"class_band": np.zeros(5, dtype=int)}
    view = GroundTruth.from_store(store)
    assert evaluate(view, table, **options).summary == evaluate(store, table, **options).summary


@pytest.mark.parametrize("protocol", ["lvis", "coco"])
def test_figures_without_anything_to_find_are_none_and_json_can_hold_them(
    protocol: str, make_dataset: Any, make_results: Any, store_of: Any, table_of: Any
) -> None:
    dataset = make_dataset(seed=30)
    results = make_results(dataset, seed=31)
    dataset["annotations"] = []
    store = store_of(dataset)
    options = OPTIONS | {"protocol": protocol, "class_band": np.zeros(5, dtype=int)}
    result = evaluate(store, table_of(results, store), **options)
    assert set(result.summary.values()) == {None}
    assert np.isnan(result.per_class).all() and np.isnan(result.overall).all()
    bands = {"class_band": options["class_band"], "band_names": options["band_names"]}
    json.dumps(summary_json({"box": result}, split="val", **bands), allow_nan=False)


@pytest.mark.parametrize("protocol", ["lvis", "coco"])
def test_no_detections_score_zero(protocol: str, case: Any) -> None:
    store, table = case
    options = OPTIONS | {"protocol": protocol, "class_band": np.zeros(5, dtype=int)}
    for iou_type in ("bbox", "segm"):
        result = evaluate(store, table.take(np.zeros(0, dtype=np.int64)), **options | {"iou_type": iou_type})
        assert (result.summary["AP"], result.summary["AR"]) == (0.0, 0.0)


def test_images_may_come_in_any_order(
    case: Any, make_dataset: Any, make_results: Any, store_of: Any, table_of: Any
) -> None:
    dataset = make_dataset(seed=30)
    results = make_results(dataset, seed=31)
    dataset["images"].reverse()
    store = store_of(dataset)
    options = OPTIONS | {"class_band": np.zeros(5, dtype=int)}
    turned = evaluate(store, table_of(results, store), **options)
    np.testing.assert_array_equal(turned.precision, evaluate(*case, **options).precision)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"protocol": "voc"}, ConfigError, "protocol=voc: must be one of lvis, coco"),
        ({"iou_type": "keypoints"}, ConfigError, "iou_type=keypoints"),
        ({"max_det": 0}, ConfigError, "max_det=0"),
        ({"class_band": np.zeros(4, dtype=int)}, DataError, "4 classes, the ground truth has 5"),
        ({"class_band": np.full(5, 2)}, DataError, "band 2, but the bands are tail, head"),
        ({"band_names": ("s", "head")}, DataError, "the figure APs"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], error: type[Exception], message: str, case: Any) -> None:
    with pytest.raises(error, match=message):
        evaluate(*case, **(OPTIONS | {"class_band": np.zeros(5, dtype=int)} | change))


def test_masks_must_be_there(make_dataset: Any, make_results: Any, store_of: Any, table_of: Any) -> None:
    dataset = make_dataset(seed=30)
    options = OPTIONS | {"class_band": np.zeros(5, dtype=int), "iou_type": "segm"}
    store = store_of(dataset)
    with pytest.raises(DataError, match="hold no masks"):
        evaluate(store, table_of(make_results(dataset, seed=31, masks=False), store), **options)
    table = table_of(make_results(dataset, seed=31), store)
    dataset["annotations"][0]["segmentation"] = None
    with pytest.raises(DataError, match="annotation 1: the segmentation is neither"):
        evaluate(store_of(dataset), table, **options)


def test_metrics_json_tells_what_was_compared(case: Any) -> None:
    store, table = case
    bands: dict[str, Any] = {"class_band": np.array([0, 1, 1, 1, 1]), "band_names": ("tail", "head")}
    box = evaluate(store, table, **OPTIONS | bands)
    content = metrics_json(store, summary_json({"box": box}, split="val", **bands), num_detections=len(table))
    assert content["box"]["AP"] == box.summary["AP"] and content["mask"] is None
    assert content["per_band"]["tail"] == {"classes": 1, "box": box.bands["tail"]}
    assert [content[key] for key in ("protocol", "split", "bands")] == ["coco", "val", ["tail", "head"]]
    assert (content["max_det"], content["max_det_per"]) == (100, "image and class")
    assert content["counts"] == {
        "classes": 5,
        "images": 8,
        "annotations": len(store.ann_ids),
        "detections": len(table),
    }
    assert content["ground_truth_hash"] == "0" * 64
    json.dumps(content, allow_nan=False)
