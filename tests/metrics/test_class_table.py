"""The table of classes and the precision-recall curves."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np
import pytest

from aegl.longtail.statistics import ClassStatistics
from aegl.metrics import DetectionTable, EvalResult, evaluate
from aegl.metrics.class_table import as_csv, class_table, precision_curves

BANDS: dict[str, Any] = {"class_band": np.array([1, 0, 0, 1, 0]), "band_names": ("tail", "head")}
STATISTICS = ClassStatistics(np.array([9, 2, 3, 8, 1]), np.array([5, 2, 1, 7, 1]), 12, BANDS["class_band"])
Case = tuple[Any, DetectionTable, dict[str, EvalResult]]


@pytest.fixture(scope="module")
def case(make_dataset: Any, make_results: Any, store_of: Any, table_of: Any) -> Case:
    """The last class has detections, but no ground truth."""
    dataset = make_dataset(seed=90)
    dataset["annotations"] = [a for a in dataset["annotations"] if a["category_id"] != 50]
    dataset["categories"][1]["name"] = 'a "name", with comma'
    store = store_of(dataset)
    table = table_of(make_results(dataset, seed=91, strays=20), store)
    kinds = {"box": "bbox", "mask": "segm"}
    options = {"protocol": "coco", **BANDS}
    return store, table, {kind: evaluate(store, table, iou_type=iou, **options) for kind, iou in kinds.items()}


def test_every_class_has_its_counts_and_figures(case: Case) -> None:
    store, table, results = case
    columns = class_table(store, table, results, statistics=STATISTICS, **BANDS)
    assert {len(column) for column in columns.values()} == {5}
    assert columns["category_id"] == [10, 20, 30, 40, 50]
    assert columns["band"] == ["head", "tail", "tail", "head", "tail"]
    assert (columns["train_images"], columns["train_instances"]) == ([5, 2, 1, 7, 1], [9, 2, 3, 8, 1])
    assert columns["gt"] == [int(np.sum(store.ann_labels == c)) for c in range(5)]
    assert columns["detections"] == [int(np.sum(table.label == c)) for c in range(5)]
    for kind, result in results.items():
        for c in range(4):
            assert columns[f"{kind}_AP"][c] == pytest.approx(result.per_class[c])
            assert columns[f"{kind}_AP50"][c] == pytest.approx(result.precision[0, :, c, 0].mean())
            assert columns[f"{kind}_AR"][c] == pytest.approx(result.recall[:, c, 0, -1].mean())
        for figure in ("AP", "AP50", "AR"):
            assert columns[f"{kind}_{figure}"][4] is None
            known = [value for value in columns[f"{kind}_{figure}"] if value is not None]
            assert np.mean(known) == pytest.approx(result.summary[figure])


def test_without_a_training_split_its_counts_are_unknown(case: Case) -> None:
    columns = class_table(*case, statistics=None, **BANDS)
    assert columns["train_images"] == columns["train_instances"] == [None] * 5


def test_csv_holds_what_the_columns_hold(case: Case) -> None:
    columns = class_table(*case, statistics=STATISTICS, **BANDS)
    rows = list(csv.DictReader(io.StringIO(as_csv(columns))))
    assert list(rows[0]) == list(columns)
    assert [row["class"] for row in rows] == columns["class"]
    assert [row["box_AP"] == "" for row in rows] == [False, False, False, False, True]
    assert [float(row["mask_AR"]) for row in rows[:4]] == columns["mask_AR"][:4]


def test_curves_are_what_the_figures_are_means_of(case: Case) -> None:
    store, _, results = case
    curves = precision_curves(store, results)
    assert curves["recall"].tolist() == pytest.approx(np.linspace(0, 1, 101))
    assert curves["class"].tolist() == list(store.categories.names)
    for kind, result in results.items():
        assert curves[f"{kind}_precision"].shape == curves[f"{kind}_precision50"].shape == (5, 101)
        assert np.isnan(curves[f"{kind}_precision50"][4]).all()
        assert np.nanmean(curves[f"{kind}_precision"]) == pytest.approx(result.summary["AP"], abs=1e-6)
        assert np.nanmean(curves[f"{kind}_precision50"]) == pytest.approx(result.summary["AP50"], abs=1e-6)
        assert curves[f"{kind}_overall"].mean() == pytest.approx(result.summary["AP"], abs=1e-6)
        assert curves[f"{kind}_overall50"].mean() == pytest.approx(result.summary["AP50"], abs=1e-6)


def test_a_pooled_protocol_has_one_curve_over_all_classes_besides(case: Case) -> None:
    store, table, _ = case
    options: dict[str, Any] = {"iou_type": "bbox", **BANDS}
    pooled = evaluate(store, table, protocol="lvis_pooled", **options)
    fixed = evaluate(store, table, protocol="lvis_fixed", **options)
    np.testing.assert_array_equal(pooled.precision, fixed.precision)
    overall = precision_curves(store, {"box": pooled})["box_overall50"]
    assert overall.mean() == pytest.approx(pooled.summary["AP50"], abs=1e-6)
    assert not math.isclose(pooled.summary["AP50"], fixed.summary["AP50"], abs_tol=1e-3)
    assert (np.diff(overall) <= 1e-7).all()
