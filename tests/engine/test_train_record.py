"""`train.json`: there when a run is complete, and only then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aegl.config import load_config
from aegl.engine.build import train
from aegl.errors import CheckpointError, RunError
from aegl.progress import SilentProgress

TINY: dict[str, Any] = {
    "data": "shapes_lt",
    "shapes": {"classes": 6, "max_instances": 12, "imbalance": 6, "val_per_class": 2},
    "model": "mini",
    "method": "softmax_ce",
    "iterations": 1,
    "warmup_iterations": 0,
    "batch": 2,
    "workers": 0,
    "device": "cpu",
    "conf": 0.01,
    "name": "x",
}


def run(project: Path, **keys: Any) -> dict[str, Any]:
    return train(load_config({**TINY, "project": project, **keys}), SilentProgress())


def test_it_holds_what_training_returned(tmp_path: Path) -> None:
    result = run(tmp_path)
    record = json.loads((tmp_path / "x" / "train.json").read_text())
    assert record == json.loads(json.dumps(result))
    assert record["metrics"]["mask"]["AP"] is not None
    assert record["ground_truth_hash"] == json.loads((tmp_path / "x" / "metrics.json").read_text())["ground_truth_hash"]


def test_a_run_that_fails_in_the_place_of_a_finished_one_has_none(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(RunError):
        run(tmp_path, exist_ok=True, iterations=4, lr=1e20)
    assert (tmp_path / "x" / "args.yaml").is_file() and not (tmp_path / "x" / "train.json").exists()


def test_a_finished_run_that_was_killed_before_its_record_gets_it_by_resume(tmp_path: Path) -> None:
    result = run(tmp_path)
    record = tmp_path / "x" / "train.json"
    record.unlink()
    resumed = run(tmp_path, resume=True)
    assert {**resumed, "seconds": None} == {**result, "seconds": None}
    assert record.is_file()
    with pytest.raises(CheckpointError, match="all its 1 steps are done"):
        run(tmp_path, resume=True)
