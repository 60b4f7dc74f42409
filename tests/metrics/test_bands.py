"""Frequency bands of any data set, from its YAML to the figures, under every protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegl import tasks
from aegl.config import load_config
from aegl.data.bands import Bands
from aegl.errors import DataError
from aegl.metrics import PROTOCOLS
from aegl.metrics.bands import band_figures
from aegl.metrics.scoring import Curves
from aegl.progress import SilentProgress

YAML = """
path: .
train: train.json
val: val.json
bands: {source: counts, by: instances, names: [few, some, many], edges: [3, 9], low: 1}
"""
TRAIN_INSTANCES = {10: 3, 20: 4, 30: 9, 40: 10, 50: 1}
EXPECTED = {10: "few", 20: "some", 30: "some", 40: "many", 50: "few"}


@pytest.mark.parametrize(
    ("instances", "band"), [(1, "1"), (19, "1"), (20, "2"), (399, "2"), (400, "3"), (7999, "3"), (8000, "4")]
)
def test_coco_lt_has_the_published_bins(instances: int, band: str) -> None:
    section = load_config({"data": "coco_lt"}).bands
    assert section.by == "instances"
    bands = Bands(tuple(section.names), tuple(section.edges), section.by, section.source, section.low)
    assert bands.names[bands.of_counts(np.array([instances]))[0]] == band


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Any, make_results: Any) -> Path:
    """A folder with a data YAML that has bands of its own, both splits, and ``results.json``."""
    folder = tmp_path_factory.mktemp("data")
    val = make_dataset(seed=100, num_images=12)
    categories = [{"id": c["id"], "name": c["name"]} for c in val["categories"]]
    image = {"id": 1, "height": 100, "width": 100, "file_name": "1.jpg"}
    box = {"image_id": 1, "bbox": [1.0, 1.0, 9.0, 9.0], "area": 81.0}
    labels = [category for category, count in TRAIN_INSTANCES.items() for _ in range(count)]
    annotations = [box | {"id": n, "category_id": category} for n, category in enumerate(labels, start=1)]
    train = {"images": [image], "annotations": annotations, "categories": categories}
    (folder / "my.yaml").write_text(YAML)
    (folder / "train.json").write_text(json.dumps(train))
    (folder / "val.json").write_text(json.dumps(val))
    (folder / "results.json").write_text(json.dumps(make_results(val, seed=101)))
    return folder


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bands_of_a_data_yaml_reach_the_figures_of_every_protocol(protocol: str, data: Path, tmp_path: Path) -> None:
    keys = {"data": data / "my.yaml", "predictions": data / "results.json", "project": tmp_path}
    found = tasks.val({**keys, "protocol": protocol, "boundary": True}, SilentProgress())
    assert (found["protocol"], found["bands"]) == (protocol, ["few", "some", "many"])
    metrics = json.loads((Path(found["run"]) / "metrics.json").read_text())
    columns = metrics["per_class"]
    assert dict(zip(columns["category_id"], columns["band"], strict=True)) == EXPECTED
    assert columns["train_instances"] == list(TRAIN_INSTANCES.values())
    assert {band: row["classes"] for band, row in found["per_band"].items()} == {"few": 2, "some": 2, "many": 1}
    for kind in ("box", "mask", "boundary"):
        for band in found["bands"]:
            assert found["per_band"][band][kind]["AP"] == found[kind][f"AP{band}"] is not None
        for figure in ("AP", "AP50", "AR"):
            of_classes = dict(zip(columns["category_id"], columns[f"{kind}_{figure}"], strict=True))
            alone = found["per_band"]["many"][kind][figure]
            assert alone == pytest.approx(of_classes[40])  # of a single class, pooled or not
            if protocol != "lvis_pooled":
                assert found["per_band"]["few"][kind][figure] == pytest.approx((of_classes[10] + of_classes[50]) / 2)


def test_a_band_without_classes_has_no_figures() -> None:
    curves = Curves(
        np.full((10, 101, 2, 4), 0.5), np.full((10, 2, 4, 1), 0.25), (100,), np.zeros((2, 2, 50), dtype=np.int64)
    )
    figures = band_figures(curves, np.zeros(2, dtype=int), ("r", "f"))
    assert figures == {"r": {"AP": 0.5, "AP50": 0.5, "AR": 0.25}, "f": {"AP": None, "AP50": None, "AR": None}}


@pytest.mark.parametrize("class_band", [[0], [0, 1, 0], [0, 2], [-1, 0]])
def test_bands_that_do_not_fit_are_named(class_band: list[int]) -> None:
    curves = Curves(
        np.full((10, 101, 2, 4), 0.5), np.full((10, 2, 4, 1), 0.25), (100,), np.zeros((2, 2, 50), dtype=np.int64)
    )
    with pytest.raises(DataError, match="bands"):
        band_figures(curves, np.array(class_band), ("r", "f"))
