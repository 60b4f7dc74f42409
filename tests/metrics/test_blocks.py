"""Scoring works block by block to bound its memory; where the blocks end changes no figure. And at some size."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.data.build import build_store
from aegl.metrics import PROTOCOLS, DetectionTable, evaluate, iou, matching, precision, rle, scoring

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _options(num_classes: int) -> dict[str, Any]:
    return {"class_band": np.arange(num_classes) % 2, "band_names": ("tail", "head")}


def _make_blocks_small(patch: pytest.MonkeyPatch, size: int) -> None:
    patch.setattr(scoring, "_BLOCK", size)
    patch.setattr(precision, "_CELLS", size)
    patch.setattr(matching, "_STATE_SIZE", 100 * size)
    patch.setattr(iou, "_BLOCK", size)
    patch.setattr(rle, "_CHUNK_BYTES", size)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_size_of_blocks_changes_nothing(
    protocol: str, iou_type: str, make_dataset: Any, make_results: Any, store_of: Any, table_of: Any
) -> None:
    dataset = make_dataset(seed=70)
    store = store_of(dataset)
    table = table_of(make_results(dataset, seed=71, boxes=False), store)
    options = _options(5) | {"protocol": protocol, "iou_type": iou_type}
    whole = evaluate(store, table, **options)
    for size in (1, 7, 40):
        with pytest.MonkeyPatch.context() as patch:
            _make_blocks_small(patch, size)
            parts = evaluate(store, table, **options)
        np.testing.assert_array_equal(parts.precision, whole.precision)
        np.testing.assert_array_equal(parts.recall, whole.recall)
        assert parts.summary == whole.summary


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_images=st.integers(2, 5),
    num_classes=st.integers(1, 4),
    boxes=st.booleans(),
    block=st.integers(1, 30),
)
def test_masks_equal_both_official_packages(
    seed: int,
    num_images: int,
    num_classes: int,
    boxes: bool,
    block: int,
    make_dataset: Any,
    make_results: Any,
    store_of: Any,
    table_of: Any,
    official_coco: Any,
    official_lvis: Any,
) -> None:
    dataset = make_dataset(seed, num_images, num_classes)
    results = make_results(dataset, seed + 1, strays=4, boxes=boxes)
    first = dataset["images"][-1]
    whole = {"size": [first["height"], first["width"]], "counts": [0, first["height"] * first["width"]]}
    results.append({"image_id": first["id"], "category_id": 10, "score": 0.5, "segmentation": whole})
    if boxes:
        results[-1]["bbox"] = [0, 0, first["width"], first["height"]]
    store = store_of(dataset)
    table = table_of(results, store)
    for record, counts in zip(results, table.masks.counts(slice(None)), strict=True):
        record["segmentation"] = record["segmentation"] | {"counts": counts.decode()}
    for protocol in ("lvis", "coco"):
        with pytest.MonkeyPatch.context() as patch:
            _make_blocks_small(patch, block)
            ours = evaluate(store, table, protocol=protocol, iou_type="segm", **_options(num_classes))
        judged = (official_lvis if protocol == "lvis" else official_coco)(dataset, results, "segm")
        theirs = judged.eval["precision"]
        theirs = theirs if protocol == "lvis" else theirs[..., -1]
        np.testing.assert_allclose(ours.precision, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_500_images_equal_the_official_package(
    iou_type: str, tmp_path: Path, official_lvis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    generator = importlib.import_module("make_detections")
    generator.write(tmp_path, generator.Generator(0, classes=120, per_image=60), 500)
    store = build_store(tmp_path / "gt.json", cache_dir=tmp_path / "cache")
    table = DetectionTable.from_results_json(tmp_path / "results.json", store)
    assert len(table) == 30_000
    ours = evaluate(store, table, protocol="lvis", iou_type=iou_type, **_options(120))
    dataset, results = (json.loads((tmp_path / name).read_text()) for name in ("gt.json", "results.json"))
    official = official_lvis(dataset, results, iou_type)
    assert ours.summary["AP"] is not None and 0.1 < ours.summary["AP"] < 0.9
    np.testing.assert_allclose(ours.precision, official.eval["precision"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.recall[..., -1], official.eval["recall"], rtol=0, atol=1e-12)
