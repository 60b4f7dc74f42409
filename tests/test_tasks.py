"""The functions behind the verbs: which weights, which configuration, and which folder a request ends up with."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from aegl import tasks
from aegl.config import load_config
from aegl.engine.checkpoint import load_checkpoint
from aegl.errors import CheckpointError, ConfigError, DataError
from aegl.prediction_tasks import PREDICT_CONF
from aegl.progress import SilentProgress
from aegl.trained import find_weights, of_the_model, open_trained, request_of

TINY: dict[str, Any] = {
    "data": "shapes_lt",
    "shapes": {"classes": 6, "max_instances": 12, "imbalance": 6, "val_per_class": 2},
    "model": "mini",
    "method": "softmax_ce",
    "iterations": 1,
    "warmup_iterations": 0,
    "batch": 2,
    "workers": 0,
    "conf": 0.01,
    "max_det": 50,
}
QUIET = SilentProgress()


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = tasks.train({**TINY, "project": tmp_path_factory.mktemp("runs"), "name": "x", "split": "train"}, QUIET)
    return Path(result["best"])


class Messages(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def test_a_model_brings_its_configuration_but_not_that_of_its_run(best: Path) -> None:
    config = open_trained({"weights": best}, QUIET).config
    assert (config.data, config.method, config.max_det, config.conf) == ("shapes_lt", "softmax_ce", 50, 0.01)
    assert (config.project, config.name, config.split, config.workers) == ("runs", None, "val", 2)
    assert of_the_model({"model": "mini", "name": "x", "weights": "y"}) == {"model": "mini"}


def test_what_is_asked_for_lies_above_the_models_own(best: Path, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("max_det: 40\nconf: 0.2\n")
    trained = open_trained({"weights": best, "cfg": tmp_path / "my.yaml", "conf": 0.4}, QUIET)
    assert (trained.config.max_det, trained.config.conf) == (40, 0.4)
    assert (trained.backend.meta.max_det, trained.backend.meta.conf) == (40, 0.4)


@pytest.mark.parametrize(
    ("given", "in_file", "expected"), [({}, "", 0.3), ({}, "conf: 0.2", 0.2), ({"conf": 0.7}, "conf: 0.2", 0.7)]
)
def test_predict_has_a_threshold_of_its_own_unless_one_is_given(
    best: Path, tmp_path: Path, given: dict[str, float], in_file: str, expected: float
) -> None:
    (tmp_path / "my.yaml").write_text(in_file)
    trained = open_trained({"weights": best, "cfg": tmp_path / "my.yaml", **given}, QUIET, conf=PREDICT_CONF)
    assert trained.backend.meta.conf == trained.config.conf == expected


def test_weights_are_those_named_or_the_newest(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run there"):
        find_weights(request_of({"project": tmp_path}), QUIET)
    for age, run in enumerate(("b", "a", "c")):
        file = tmp_path / run / "weights" / "best.pt"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (1000 - age, 1000 - age))
    progress = Messages()
    newest = tmp_path / "b" / "weights" / "best.pt"
    assert find_weights(request_of({"project": tmp_path}), progress) == newest
    assert progress.lines == [f"weights={newest} (the newest run's)"]
    assert find_weights(request_of({"weights": "mine.pt"}), progress) == Path("mine.pt")
    (tmp_path / "my.yaml").write_text("weights: of_file.pt\nlr: 0.5\n")
    assert find_weights(request_of({"cfg": tmp_path / "my.yaml"}), progress) == Path("of_file.pt")
    assert find_weights(request_of({"cfg": tmp_path / "my.yaml", "weights": "mine.pt"}), progress) == Path("mine.pt")
    assert len(progress.lines) == 1


def test_a_misspelt_key_is_told_before_weights_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"wieghts: unknown key .*weights"):
        tasks.val({"wieghts": "best.pt", "project": tmp_path}, QUIET)


def test_a_refused_request_leaves_no_folder(best: Path, tmp_path: Path) -> None:
    project = {"weights": best, "project": tmp_path / "runs"}
    with pytest.raises(DataError, match="not the same"):
        tasks.val({**project, "data": "shapes_lt", "shapes.classes": 5}, QUIET)
    with pytest.raises(DataError, match=r"source=.*nowhere"):
        tasks.predict({**project, "source": tmp_path / "nowhere"}, QUIET)
    (tmp_path / "results.json").write_text("[{}]")
    with pytest.raises(DataError, match="record 0"):
        tasks.val({**TINY, "predictions": tmp_path / "results.json", "project": tmp_path / "runs"}, QUIET)
    assert not (tmp_path / "runs").exists()


def test_a_taken_name_is_refused_before_any_work(best: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    image = tmp_path / "x.jpg"
    image.write_text("no image: reading it would be an error of its own")
    named = {"project": tmp_path, "name": "x"}
    with pytest.raises(ConfigError, match="exists already"):
        tasks.predict({"weights": best, "source": image, **named}, QUIET)
    with pytest.raises(ConfigError, match="exists already"):
        tasks.val({**TINY, "predictions": tmp_path / "none.json", **named}, QUIET)
    with pytest.raises(ConfigError, match="exists already"):
        tasks.val({"weights": best, "workers": 0, **named}, QUIET)


def test_scoring_a_file_takes_the_bands_of_the_training_split(tmp_path: Path) -> None:
    source = tasks.open_source(load_config(TINY))
    store = source.open("val")
    records = [
        {"image_id": int(store.image_ids[i]), "category_id": int(c), "score": 0.5, "bbox": box.tolist()}
        for i, c, box in zip(store.ann_image, store.categories.ids[store.ann_labels], store.ann_boxes_xywh, strict=True)
    ]
    (tmp_path / "results.json").write_text(json.dumps(records))
    keys = {"predictions": tmp_path / "results.json", "project": tmp_path / "runs"}
    perfect = tasks.val({**TINY, **keys}, QUIET)
    assert [perfect["box"][figure] for figure in ("AP", "APr", "APf")] == pytest.approx([1, 1, 1])
    metrics = json.loads((Path(perfect["run"]) / "metrics.json").read_text())
    assert metrics["counts"]["detections"] == len(records)


def test_resuming_takes_the_runs_own_settings_or_says_what_differs(best: Path, tmp_path: Path) -> None:
    run = tmp_path / "x"
    shutil.copytree(best.parents[1], run)
    resume = {"resume": True, "project": tmp_path, "name": "x"}
    with pytest.raises(ConfigError, match=r"iterations=5: .* was started with 1\nresume=true goes on as begun"):
        tasks.train({**resume, "iterations": 5}, QUIET)
    with pytest.raises(ConfigError, match=r"shapes\.classes=7: .* was started with 6"):
        tasks.train({**resume, "shapes": {"classes": 7}}, QUIET)
    same = {key: value for key, value in TINY.items() if key != "workers"}
    with pytest.raises(CheckpointError, match="steps are done"):
        tasks.train({**resume, **same, "workers": 1, "device": "cpu"}, QUIET)
    assert load_checkpoint(run / "weights" / "last.pt").iteration == 1


def test_a_run_that_goes_on_leaves_out_its_report_if_it_was_started_so(tmp_path: Path) -> None:
    asked = {"project": tmp_path, "name": "x", "resume": "auto"}
    for given in ({**TINY, "report": False}, {}):  # the second finds a finished run
        assert "report" not in tasks.train({**given, **asked}, QUIET)
    assert not list(tmp_path.rglob("*.html"))


def test_data_tasks_need_a_data_set() -> None:
    for task in (tasks.data_check, tasks.data_stats, tasks.data_download):
        with pytest.raises(ConfigError, match="data: not given"):
            task({}, QUIET)
    with pytest.raises(DataError, match="nowhere"):
        tasks.data_check({"data": "nowhere.json"}, QUIET)
