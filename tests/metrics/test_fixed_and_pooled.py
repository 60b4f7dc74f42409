"""LVIS fixed AP and pooled AP against a reference in plain loops, and fixed AP against the lvis package too."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.metrics import DetectionTable, EvalResult, evaluate
from aegl.metrics.fixed import top_rows_of_classes

BANDS = ("r", "c", "f")
THRESHOLDS = np.linspace(0.5, 0.95, 10)
Json = dict[str, Any]


def _iou(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def _best_of_each_class(results: list[Json], most: int) -> list[Json]:
    by_class = defaultdict(list)
    for result in results:
        by_class[result["category_id"]].append(result)
    return [r for found in by_class.values() for r in sorted(found, key=lambda r: -r["score"])[:most]]


def _match(detections: list[Json], objects: list[Json], threshold: float) -> list[Json | None]:
    """For detections by falling score, the object that each finds; objects to be ignored last."""
    taken: set[int] = set()
    found: list[Json | None] = []
    for detection in detections:
        best = None
        for ignored in (0, 1):
            least = threshold
            for o in objects:
                if o["id"] in taken or o["ignore"] != ignored or _iou(detection["bbox"], o["bbox"]) < least:
                    continue
                best, least = o, _iou(detection["bbox"], o["bbox"])
            if best is not None:
                break
        if best is not None:
            taken.add(best["id"])
        found.append(best)
    return found


def _judged(dataset: Json, results: list[Json], category: int, threshold: float) -> tuple[list[Any], int]:
    """``(score, image, class, rank, true)`` of every detection that counts, and the number of objects to be found."""
    judged, total = [], 0
    for image in dataset["images"]:
        mine = [a for a in dataset["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], category)]
        total += sum(not a["ignore"] for a in mine)
        if not mine and category not in image["neg_category_ids"]:
            continue
        found = [r for r in results if (r["image_id"], r["category_id"]) == (image["id"], category)]
        found.sort(key=lambda r: -r["score"])
        for rank, (detection, match) in enumerate(zip(found, _match(found, mine, threshold), strict=True)):
            sloppy = match is None and category in image["not_exhaustive_category_ids"]
            if not sloppy and not (match and match["ignore"]):
                judged.append((detection["score"], image["id"], category, rank, match is not None))
    return judged, total


def _average_precision(judged: list[Any], total: int) -> float:
    ranked = sorted(judged, key=lambda j: (-j[0], j[1:4]))
    points, true = [], 0
    for count, (*_, right) in enumerate(ranked, start=1):
        true += right
        points.append((true / total, true / count))
    return float(np.mean([max((p for r, p in points if r >= point), default=0.0) for point in np.linspace(0, 1, 101)]))


def _reference(dataset: Json, results: list[Json], categories: list[int], *, most: int, pooled: bool) -> float | None:
    """Fixed or pooled AP of some classes."""
    results = _best_of_each_class(results, most)
    figures = []
    for threshold in THRESHOLDS:
        per_class = [_judged(dataset, results, category, threshold) for category in categories]
        if pooled:
            per_class = [([j for judged, _ in per_class for j in judged], sum(total for _, total in per_class))]
        figures += [_average_precision(judged, total) for judged, total in per_class if total]
    return float(np.mean(figures)) if figures else None


def _score(dataset: Json, store: Any, table: DetectionTable, protocol: str, **options: Any) -> EvalResult:
    bands = np.array([BANDS.index(c["frequency"]) for c in dataset["categories"]])
    options = {"iou_type": "bbox"} | options
    return evaluate(store, table, protocol=protocol, class_band=bands, band_names=BANDS, **options)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_classes=st.integers(1, 5), most=st.sampled_from([3, 8, 10_000]))
@pytest.mark.parametrize("protocol", ["lvis_fixed", "lvis_pooled"])
def test_equals_the_reference_over_all_classes_and_in_every_band(
    protocol: str,
    seed: int,
    num_classes: int,
    most: int,
    make_dataset: Any,
    make_results: Any,
    store_of: Any,
    table_of: Any,
) -> None:
    dataset = make_dataset(seed, 5, num_classes, 8)
    results = make_results(dataset, seed + 1, masks=False)
    results.append({"image_id": dataset["images"][-1]["id"], "category_id": 10, "score": 0.5, "bbox": [0, 0, 9, 9]})
    store = store_of(dataset)
    ours = _score(dataset, store, table_of(results, store), protocol, max_det=most)
    for name in ("", *BANDS):
        categories = [c["id"] for c in dataset["categories"] if name in ("", c["frequency"])]
        expected = _reference(dataset, results, categories, most=most, pooled=protocol == "lvis_pooled")
        assert ours.summary[f"AP{name}"] == pytest.approx(expected, abs=1e-9), name


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_fixed_ap_is_the_lvis_packages_without_its_limit(
    iou_type: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_dataset: Any,
    make_results: Any,
    store_of: Any,
    table_of: Any,
) -> None:
    from lvis import LVIS, LVISEval, LVISResults

    dataset = make_dataset(seed=60, num_images=4)
    results = make_results(dataset, seed=61, masks=iou_type == "segm", strays=900)
    assert np.unique([r["image_id"] for r in results], return_counts=True)[1].max() > 300
    (tmp_path / "gt.json").write_text(json.dumps(dataset))
    monkeypatch.setattr(np, "float", float, raising=False)
    gt = LVIS(str(tmp_path / "gt.json"))
    kept = copy.deepcopy(_best_of_each_class(results, 150))
    official = LVISEval(gt, LVISResults(gt, kept, max_dets=-1), iou_type)
    official.run()
    store = store_of(dataset)
    ours = _score(dataset, store, table_of(results, store), "lvis_fixed", iou_type=iou_type, max_det=150)
    np.testing.assert_allclose(ours.precision, official.eval["precision"], rtol=0, atol=1e-12)
    for name, value in official.results.items():
        assert ours.summary[name.split("@")[0]] == pytest.approx(value, abs=1e-12), name


def _two_classes(scores: dict[int, tuple[float, float]]) -> tuple[Json, list[Json]]:
    """Of each class an object that is found and a detection beside it, with these scores."""
    image = {"id": 1, "height": 100, "width": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    box, beside = [10.0, 10.0, 50.0, 50.0], [80.0, 80.0, 15.0, 15.0]
    categories = [{"id": c, "name": str(c), "frequency": band} for c, band in ((1, "r"), (2, "f"))]
    annotations = [{"id": c, "image_id": 1, "category_id": c, "bbox": box, "area": 2500.0} for c in (1, 2)]
    results = [
        {"image_id": 1, "category_id": c, "score": score, "bbox": b}
        for c, pair in scores.items()
        for score, b in zip(pair, (box, beside), strict=True)
    ]
    return {"images": [image], "annotations": annotations, "categories": categories}, results


def test_pooled_ap_tells_scores_that_mean_different_things_from_calibrated_ones(store_of: Any, table_of: Any) -> None:
    calibrated = {1: (0.9, 0.2), 2: (0.8, 0.1)}
    uncalibrated = {1: (0.9, 0.8), 2: (0.3, 0.1)}
    found = {}
    for name, scores in (("calibrated", calibrated), ("uncalibrated", uncalibrated)):
        dataset, results = _two_classes(scores)
        store = store_of(dataset)
        for protocol in ("lvis_fixed", "lvis_pooled"):
            found[name, protocol] = _score(dataset, store, table_of(results, store), protocol).summary["AP"]
    assert found["calibrated", "lvis_fixed"] == found["uncalibrated", "lvis_fixed"] == pytest.approx(1)
    assert found["calibrated", "lvis_pooled"] == pytest.approx(1)
    # One true positive, one false, one true: precision 1 up to a recall of 0.5 (51 points), then 2/3.
    assert found["uncalibrated", "lvis_pooled"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_flood_of_one_class_does_not_push_another_out_of_an_image(store_of: Any, table_of: Any) -> None:
    dataset, results = _two_classes({1: (0.9, 0.8), 2: (0.1, 0.05)})
    results += [results[1] | {"score": 0.7}] * 400
    store = store_of(dataset)
    table = table_of(results, store)
    assert _score(dataset, store, table, "lvis").per_class[1] == 0
    assert _score(dataset, store, table, "lvis_fixed").per_class[1] == pytest.approx(1)


def test_the_limit_counts_over_the_whole_split_and_keeps_the_first_of_equals(store_of: Any, table_of: Any) -> None:
    dataset, results = _two_classes({1: (0.5, 0.5), 2: (0.9, 0.2)})
    store = store_of(dataset)
    table = table_of([results[1], results[0], *results[2:]], store)
    assert top_rows_of_classes(table, 1).tolist() == [0, 2]
    assert top_rows_of_classes(table_of(results[::-1], store), 1).tolist() == [1, 2]
    assert _score(dataset, store, table, "lvis_fixed", max_det=1).per_class.tolist() == pytest.approx([0, 1])
    assert _score(dataset, store, table, "lvis_fixed").max_dets == (10_000,)


def test_pooled_figures_without_anything_to_find_are_none(store_of: Any, table_of: Any) -> None:
    dataset, results = _two_classes({1: (0.9, 0.8), 2: (0.1, 0.05)})
    dataset["annotations"] = []
    store = store_of(dataset)
    assert set(_score(dataset, store, table_of(results, store), "lvis_pooled").summary.values()) == {None}
