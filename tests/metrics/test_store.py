"""Scoring straight from an annotation store built of a file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegl.data.build import build_store
from aegl.metrics import DetectionTable, evaluate


@pytest.mark.parametrize("protocol", ["lvis", "coco"])
def test_a_store_scores_as_the_file_it_was_built_of(
    protocol: str, tmp_path: Path, make_dataset: Any, make_results: Any, official_coco: Any, official_lvis: Any
) -> None:
    dataset = make_dataset(seed=50)
    results = make_results(dataset, seed=51)
    (tmp_path / "gt.json").write_text(json.dumps(dataset))
    (tmp_path / "results.json").write_text(json.dumps(results))
    store = build_store(tmp_path / "gt.json", image_dirs=[tmp_path], cache_dir=tmp_path / "cache")
    table = DetectionTable.from_results_json(tmp_path / "results.json", store)
    bands = np.arange(len(dataset["categories"])) % 3
    for iou_type in ("bbox", "segm"):
        ours = evaluate(
            store, table, protocol=protocol, iou_type=iou_type, class_band=bands, band_names=("r", "c", "f")
        )
        judged = (official_lvis if protocol == "lvis" else official_coco)(dataset, results, iou_type)
        theirs = judged.eval["precision"]
        theirs = theirs if protocol == "lvis" else theirs[..., -1]
        np.testing.assert_allclose(ours.precision, theirs, rtol=0, atol=1e-12)
