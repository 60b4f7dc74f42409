"""Loggers record each step once over a kill, and none of them can end a run."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aegl.config import load_config
from aegl.config.training import LOGGERS
from aegl.engine.callbacks import Callback, LogRecord, TrainResult
from aegl.engine.loggers.factory import make_loggers
from aegl.engine.loggers.figures import evaluation_figures, training_figures
from aegl.engine.loggers.tolerant import GIVEN_UP_AFTER, Tolerant
from aegl.engine.loggers.tracker import Tracker
from aegl.errors import ConfigError

CONFIG = {"lr": 0.02, "loss.name": "softmax_ce", "paste.folder": None, **{f"key{i}": i for i in range(150)}}
SUMMARY = {"protocol": "lvis", "box": {"AP": 0.5, "APr": None}, "mask": {"AP": 0.4, "APr": 0.25}}


def record(iteration: int) -> LogRecord:
    return LogRecord(
        iteration, 12, iteration / 6, 0.01, 1 / iteration, {"cls": 0.5}, 8.0, 0.1, 2.0, 3.0, {"seen": float(iteration)}
    )


def test_memory_is_recorded_where_the_system_tells_it() -> None:
    assert "memory_mb" not in training_figures(record(2))
    assert training_figures(replace(record(2), memory_mb=512.0))["memory_mb"] == 512.0


def session(logger: Callback, first: int, last: int, *, killed: bool, evaluates_first: bool = False) -> None:
    """A run from one step to another, evaluated at every fourth."""
    logger.on_train_start(first - 1, 12)
    if evaluates_first:
        logger.on_val_end(first - 1, SUMMARY)
    for iteration in range(first, last + 1):
        if iteration % 2 == 0:
            logger.on_log(record(iteration))
        if iteration % 4 == 0:
            logger.on_val_end(iteration, SUMMARY)
    if not killed:
        logger.on_train_end(TrainResult(12, 1.0, SUMMARY, 0.4))
    logger.on_exit()


def killed_and_resumed(name: str, folder: Path, between: Callable[[], None] = lambda: None) -> None:
    """Logged up to step 10, dead, resumed from step 4, whose evaluation was told of but not saved."""
    (first,) = make_loggers([name], folder, CONFIG, logged_until=None, evaluated_until=0)
    session(first, 1, 10, killed=True)
    between()  # what the end of a process does
    (second,) = make_loggers([name], folder, CONFIG, logged_until=4, evaluated_until=0)
    session(second, 5, 12, killed=False, evaluates_first=True)


def test_every_figure_has_its_name() -> None:
    assert evaluation_figures(SUMMARY) == {"box/AP": 0.5, "mask/AP": 0.4, "mask/APr": 0.25}
    names = {"loss", "cls", "lr", "epoch", "images_per_second", "data_share", "diagnostics/seen"}
    assert training_figures(record(2)).keys() == names


class Memory(Tracker):
    """A system that keeps what it is told, in a list that outlives the process."""

    def __init__(self, folder: Path, told: list[Any], *, resumed: bool, down: int = 0) -> None:
        super().__init__("memory", folder, CONFIG, resumed=resumed)
        self.told = told
        self.down = down

    def begin(self, run: str | None) -> str:
        if self.down:
            self.down -= 1
            raise ConnectionError("down")
        self.told.append(("begin", run))
        return run or "new"

    def record(self, figures: Mapping[str, float], iteration: int) -> None:
        self.told.append((sorted(figures)[0].partition("/")[0], iteration))

    def end(self, *, complete: bool) -> None:
        self.told.append(("end", complete))


def test_a_system_is_told_every_step_once_over_two_kills(tmp_path: Path) -> None:
    told: list[Any] = []
    session(Memory(tmp_path, told, resumed=False), 1, 10, killed=True)
    session(Memory(tmp_path, told, resumed=True), 5, 6, killed=True)
    session(Memory(tmp_path, told, resumed=True), 5, 12, killed=False)
    assert [step for kind, step in told if kind == "train"] == [2, 4, 6, 8, 10, 12]
    assert [step for kind, step in told if kind == "val"] == [4, 8, 12]
    assert [run for kind, run in told if kind == "begin"] == [None, "new", "new"]
    assert [complete for kind, complete in told if kind == "end"] == [False, False, True]


def test_a_new_run_in_the_folder_of_an_old_one_is_another_record(tmp_path: Path) -> None:
    told: list[Any] = []
    for _ in range(2):
        session(Memory(tmp_path, told, resumed=False), 1, 4, killed=False)
    assert [run for kind, run in told if kind == "begin"] == [None, None]
    assert [step for kind, step in told if kind == "val"] == [4, 4]


def test_a_system_that_is_down_at_first_is_told_from_when_it_is_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    session(Tolerant(Memory(tmp_path, told, resumed=False, down=2), "memory"), 1, 12, killed=False)
    assert [step for kind, step in told if kind == "train"] == [4, 6, 8, 10, 12]
    assert [r.message for r in caplog.records] == [
        "loggers=memory: ConnectionError: down; training goes on, results.csv has everything"
    ]


def test_a_logger_that_fails_does_not_end_the_run(
    toy: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Down(Callback):
        calls = 0

        def on_log(self, record: LogRecord) -> None:
            self.calls += 1
            raise ConnectionError("no route to host\nand more")

    down = Down()
    with caplog.at_level(logging.WARNING, "aegl"):
        result = toy.build(tmp_path, callbacks=[Tolerant(down, "mlflow")], log_every=1).run()
    assert result.iterations == 12
    assert 1 <= down.calls <= 12
    warnings = [r.message for r in caplog.records]
    assert len(warnings) == len(set(warnings)) <= 2
    assert warnings[0].startswith("loggers=mlflow: ConnectionError: no route to host; training goes on")


def test_a_logger_that_always_fails_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Down(Callback):
        calls = 0

        def on_log(self, record: LogRecord) -> None:
            self.calls += 1
            raise TimeoutError

    down = Down()
    logger = Tolerant(down, "wandb")
    for iteration in range(1, 10):
        logger.on_log(record(iteration))
    assert down.calls == GIVEN_UP_AFTER
    assert "failed 3 times in a row and is left alone" in caplog.text


def test_unknown_loggers_and_patience_without_evaluations_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        load_config({"loggers": "tensorbord", "patience": 3})
    assert "loggers=tensorbord: unknown (did you mean tensorboard?)" in str(error.value)
    assert "patience=3, val_every=0: there are no evaluations to wait for; give val_every" in str(error.value)


def test_a_missing_package_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aegl.engine import build
    from aegl.progress import SilentProgress

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = load_config(
        {"data": "shapes_lt", "model": "mini", "iterations": 1, "device": "cpu", "project": str(tmp_path / "runs")}
        | {"loggers": "wandb,mlflow"}
    )
    with pytest.raises(ConfigError, match=r"loggers=wandb,mlflow: not installed; pip install 'aegl\[wandb,mlflow\]'"):
        build.train(config, SilentProgress())
    assert not (tmp_path / "runs").exists()


def test_every_logger_has_an_extra() -> None:
    import configparser

    parser = configparser.ConfigParser()
    parser.read(Path(__file__).resolve().parents[2] / "setup.cfg")
    assert set(LOGGERS) <= set(parser["options.extras_require"])


def test_tensorboard_continues_without_a_point_twice(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    killed_and_resumed("tensorboard", tmp_path)
    steps = {}
    for part, tag in (("train", "loss"), ("val", "mask/APr")):
        events = EventAccumulator(str(tmp_path / "tensorboard" / part)).Reload()
        steps[part] = [event.step for event in events.Scalars(tag)]
    assert steps == {"train": [2, 4, 6, 8, 10, 12], "val": [4, 8, 12]}
    assert [event.value for event in events.Scalars("mask/APr")] == [0.25] * 3


def test_mlflow_continues_the_same_run_without_a_point_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    killed_and_resumed("mlflow", tmp_path)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("aegl").experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == tmp_path.name
    assert run.data.params.keys() == CONFIG.keys()
    steps = {
        tag: [m.step for m in client.get_metric_history(run.info.run_id, tag)] for tag in ("train/loss", "val/box/AP")
    }
    assert steps == {"train/loss": [2, 4, 6, 8, 10, 12], "val/box/AP": [4, 8, 12]}


def wandb_rows(path: Path) -> list[dict[str, Any]]:
    """The history in a file of an offline run: a log in LevelDB's format, of protocol buffers, behind seven bytes."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts = path.read_bytes(), 7, b""
    rows = []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # the rest of a block that cannot hold a header
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            entry = wandb_internal_pb2.Record()
            entry.ParseFromString(parts)
            parts = b""
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in entry.history.item})
    return [row for row in rows if row]


def test_wandb_offline_continues_under_the_same_id_without_a_point_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    killed_and_resumed("wandb", tmp_path, between=wandb.teardown)
    (identifier,) = {path.stem for path in tmp_path.glob("wandb/offline-run-*/run-*.wandb")}
    assert identifier.removeprefix("run-") == json.loads((tmp_path / "loggers" / "wandb.json").read_text())["run"]
    rows = [row for path in sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb")) for row in wandb_rows(path)]
    assert [row["iteration"] for row in rows if "train/loss" in row] == [2, 4, 6, 8, 10, 12]
    assert [row["iteration"] for row in rows if "val/box/AP" in row] == [4, 8, 12]
