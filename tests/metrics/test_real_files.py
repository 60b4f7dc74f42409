"""Scoring of whole files. Generated files by default; the real ones too where `AEGL_SHARED_DATA` names their folder."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegl.metrics import DetectionTable, evaluate

SHARED = Path(os.environ["AEGL_SHARED_DATA"]) if "AEGL_SHARED_DATA" in os.environ else None
COCO_FIGURES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl"]


def _real(*paths: str) -> list[Any]:
    return [] if SHARED is None else [pytest.param(SHARED / path, id=path) for path in paths]


def _dataset(source: Any, make_dataset: Any) -> dict[str, Any]:
    return make_dataset(seed=source) if isinstance(source, int) else json.loads(source.read_text())


def _score(dataset: dict[str, Any], store: Any, table: DetectionTable, protocol: str, iou_type: str) -> Any:
    bands = np.array(["rcf".index(c.get("frequency", "f")) for c in dataset["categories"]])
    return evaluate(store, table, protocol=protocol, iou_type=iou_type, class_band=bands, band_names=("r", "c", "f"))


def _published(folder: Path, iou_type: str) -> list[float]:
    """The twelve figures that the authors of the COCO API print for one kind of detections."""
    text = (folder / "val2014_fake_eval_res.txt").read_text()
    block = text.split(f"type={iou_type}\n")[1]
    return [float(v) for v in re.findall(r"\] = ([\d.]+)", block)][:12]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("source", [40, *_real("cocoapi")])
def test_coco_api_example(
    source: Any,
    iou_type: str,
    make_dataset: Any,
    make_results: Any,
    store_of: Any,
    table_of: Any,
    official_coco: Any,
) -> None:
    if isinstance(source, int):
        dataset = make_dataset(seed=source)
        results = make_results(dataset, seed=source + 1, boxes=iou_type == "bbox", masks=iou_type == "segm")
        expected = official_coco(dataset, results, iou_type).stats
    else:
        dataset = _dataset(source / "instances_val2014_100.json", make_dataset)
        results = json.loads((source / f"instances_val2014_fake{iou_type}100_results.json").read_text())
        expected = _published(source, iou_type)
        assert len(expected) == 12
    store = store_of(dataset)
    summary = _score(dataset, store, table_of(results, store), "coco", iou_type).summary
    np.testing.assert_allclose([summary[name] for name in COCO_FIGURES], expected, rtol=0, atol=6e-4)


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
@pytest.mark.parametrize(
    "source",
    [41, *_real("coco_lt_mini/val.json", "lvis_val_mini/lvis_v0.5_val_mini.json", "lvis_meta/lvis_val_100.json")],
)
def test_ground_truth_as_predictions_is_perfect(
    source: Any, protocol: str, make_dataset: Any, store_of: Any, table_of: Any
) -> None:
    dataset = _dataset(source, make_dataset)
    dataset["annotations"] = [a | {"ignore": 0} for a in dataset["annotations"] if not a.get("iscrowd")]
    keys = ("image_id", "category_id", "bbox", "segmentation")
    results = [{k: a[k] for k in keys} | {"score": 1.0} for a in dataset["annotations"]]
    store = store_of(dataset)
    table = table_of(results, store)
    for iou_type in ("bbox", "segm"):
        assert _score(dataset, store, table, protocol, iou_type).summary["AP"] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("source", [42, *_real("lvis_meta/lvis_val_100.json")])
def test_random_predictions_get_the_lvis_packages_figures(
    source: Any,
    iou_type: str,
    make_dataset: Any,
    make_results: Any,
    store_of: Any,
    table_of: Any,
    official_lvis: Any,
) -> None:
    dataset = _dataset(source, make_dataset)
    results = make_results(dataset, seed=43, strays=40)
    store = store_of(dataset)
    ours = _score(dataset, store, table_of(results, store), "lvis", iou_type)
    official = official_lvis(dataset, results, iou_type)
    np.testing.assert_allclose(ours.precision, official.eval["precision"], rtol=0, atol=1e-12)
    for name, value in official.results.items():
        figure = ours.summary[name.split("@")[0]]
        assert (-1 if figure is None else figure) == pytest.approx(value, abs=1e-12), name
