"""`scorer=official`: the packages themselves, on a NumPy that stays as it is, and how far aegl's figures are off."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegl.data.build import build_store
from aegl.errors import ConfigError, DataError
from aegl.metrics import DetectionTable, EvalResult, evaluate
from aegl.metrics.official import require_official, run_official

BANDS: dict[str, Any] = {"class_band": np.array([1, 2, 0, 1, 2]), "band_names": ("r", "c", "f")}
"""Those of the generated files' `frequency`."""


@pytest.fixture
def case(tmp_path: Path, make_dataset: Any, make_results: Any) -> Any:
    """Store and detections, optionally after a change to the file's content."""

    def make(change: Any = lambda dataset: None) -> tuple[Any, DetectionTable]:
        dataset = make_dataset(seed=80, num_images=12)
        results = make_results(dataset, seed=81, strays=40)
        change(dataset)
        (tmp_path / "gt.json").write_text(json.dumps(dataset))
        (tmp_path / "results.json").write_text(json.dumps(results))
        store = build_store(tmp_path / "gt.json", image_dirs=[tmp_path], cache_dir=tmp_path / "cache")
        return store, DetectionTable.from_results_json(tmp_path / "results.json", store)

    return make


def _ours(store: Any, table: DetectionTable, protocol: str, iou_type: str, **options: Any) -> EvalResult:
    return evaluate(store, table, protocol=protocol, iou_type=iou_type, **(BANDS | options))


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("protocol", "package", "figures"), [("lvis", "lvis", 13), ("coco", "pycocotools", 12)])
def test_the_package_and_aegl_agree(protocol: str, package: str, figures: int, iou_type: str, case: Any) -> None:
    store, table = case()
    ours = _ours(store, table, protocol, iou_type)
    official = run_official(store, table, ours, **BANDS)
    assert official.package.split()[0] == package
    assert len(official.figures) == figures
    assert official.largest_difference(ours) < 1e-12


def test_the_number_of_detections_is_the_one_asked_for(case: Any) -> None:
    store, table = case()
    few, many = (_ours(store, table, "lvis", "bbox", max_det=n) for n in (3, 300))
    official = run_official(store, table, few, **BANDS)
    assert official.largest_difference(few) < 1e-12
    assert official.largest_difference(many) > 1e-3


def test_any_difference_shows(case: Any) -> None:
    store, table = case()
    ours = _ours(store, table, "lvis", "bbox")
    official = run_official(store, table, ours, **BANDS)
    changed = replace(ours, summary=ours.summary | {"APm": ours.summary["APm"] + 0.25})
    assert official.largest_difference(changed) == pytest.approx(0.25)
    assert official.largest_difference(replace(ours, summary=ours.summary | {"APm": None})) == 1
    curves = ours.precision.copy()
    curves[3, 50, 1, 2] -= 0.125
    assert official.largest_difference(replace(ours, precision=curves)) == pytest.approx(0.125)


def test_bands_that_are_not_the_files_are_not_compared(case: Any) -> None:
    store, table = case()
    other = {"class_band": np.zeros(5, dtype=int), "band_names": ("r", "c", "f")}
    ours = _ours(store, table, "lvis", "bbox", **other)
    official = run_official(store, table, ours, **other)
    assert not {"APr", "APc", "APf"} & official.figures.keys()
    assert official.largest_difference(ours) < 1e-12


def test_numpy_and_logging_stay_as_they_are(case: Any) -> None:
    import lvis.eval

    store, table = case()
    before, handlers = vars(np).keys() | set(), list(logging.getLogger().handlers)
    run_official(store, table, _ours(store, table, "lvis", "bbox"), **BANDS)
    assert vars(np).keys() == before and not hasattr(np, "float")
    assert lvis.eval.np is np
    assert logging.getLogger().handlers == handlers
    assert logging.getLogger("lvis").level == logging.NOTSET


def test_importing_the_lvis_package_leaves_the_root_logger_alone(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, table = case()
    for module in [name for name in sys.modules if name.partition(".")[0] == "lvis"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # where there are some, the package adds none
    run_official(store, table, _ours(store, table, "lvis", "bbox"), **BANDS)
    assert logging.getLogger().handlers == []


@pytest.mark.parametrize("protocol", ["lvis_fixed", "lvis_pooled"])
def test_protocols_without_a_package_are_refused(protocol: str, case: Any) -> None:
    with pytest.raises(ConfigError, match=f"scorer=official, protocol={protocol}: no official package.*leave out"):
        require_official(protocol)
    store, table = case()
    with pytest.raises(ConfigError, match="no official package"):
        run_official(store, table, _ours(store, table, protocol, "bbox"), **BANDS)


def test_boundaries_and_other_numbers_of_detections_are_refused(case: Any) -> None:
    store, table = case()
    with pytest.raises(ConfigError, match="boundary=true"):
        run_official(store, table, _ours(store, table, "coco", "boundary"), **BANDS)
    with pytest.raises(ConfigError, match="max_det=50: pycocotools summarises 100 only"):
        run_official(store, table, _ours(store, table, "coco", "bbox", max_det=50), **BANDS)


def _without(key: str, records: str) -> Any:
    def change(dataset: dict[str, Any]) -> None:
        for record in dataset[records]:
            del record[key]

    return change


@pytest.mark.parametrize("key", ["neg_category_ids", "frequency"])
def test_a_file_that_the_package_cannot_read_is_named(key: str, case: Any) -> None:
    store, table = case(_without(key, "categories" if key == "frequency" else "images"))
    ours = _ours(store, table, "lvis", "bbox")
    with pytest.raises(DataError, match=rf"gt.json: the lvis package cannot score with this file \(KeyError: '{key}'"):
        run_official(store, table, ours, **BANDS)


def test_pycocotools_runs_without_crowd_flags(case: Any) -> None:
    store, table = case(_without("iscrowd", "annotations"))
    ours = _ours(store, table, "coco", "bbox")
    assert run_official(store, table, ours, **BANDS).largest_difference(ours) < 1e-12


def test_no_detections_and_no_file_are_named(case: Any) -> None:
    store, table = case()
    ours = _ours(store, table, "lvis", "bbox")
    with pytest.raises(DataError, match="no detections"):
        run_official(store, table.take(np.zeros(0, dtype=np.int64)), ours, **BANDS)
    store.source.unlink()
    with pytest.raises(DataError, match=r"gt.json: no such annotation file; scorer=official"):
        run_official(store, table, ours, **BANDS)
