"""Whole training runs of a real model on a small generated data set."""

import csv
import json
import logging
import multiprocessing
import os
import signal
import socket
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from aegl.config import complete_parts, load_config
from aegl.engine.build import train
from aegl.engine.callbacks import Callback
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.predictor import predict
from aegl.engine.restore import load_torch_backend
from aegl.engine.results_csv import evaluations
from aegl.errors import CheckpointError, ConfigError, RunError
from aegl.progress import Figures, Progress, SilentProgress

SMALL: dict[str, Any] = {
    "data": "shapes_lt",
    "model": "mini",
    "method": "fbs_aegl",
    "loss.gate_start": 0.5,
    "shapes": {"classes": 4, "max_instances": 12, "imbalance": 6, "val_per_class": 2, "imgsz": 64},
    "neck.channels": 16,
    "box.hidden": 32,
    "mask.channels": 8,
    "imgsz": 64,
    "max_size": 64,
    "train_imgsz": [48, 64],
    "batch": 4,
    "iterations": 6,
    "warmup_iterations": 2,
    "lr": 0.01,
    "ema": True,
    "checkpoint_every": 3,
    "log_every": 2,
    "workers": 0,
    "device": "cpu",
}


class KillAt(Callback):
    def __init__(self, iteration: int, number: signal.Signals = signal.SIGKILL) -> None:
        self.iteration, self.number = iteration, number

    def on_step_end(self, iteration: int) -> None:
        if iteration == self.iteration:
            os.kill(os.getpid(), self.number)


class Evaluations(SilentProgress):
    """Keeps what is shown of evaluations: title, figures, those of the evaluation before."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, Figures, Figures]] = []

    def figures(self, title: str, figures: Figures, before: Figures) -> None:
        self.shown.append((title, figures, before))


def run(project: Path, *callbacks: Callback, progress: Progress | None = None, **changes: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    config = load_config({**SMALL, "project": str(project), **changes})
    return train(config, progress or SilentProgress(), callbacks)


def forked(*arguments: Any, env: dict[str, str] | None = None, **changes: Any) -> BaseProcess:
    def body() -> None:
        os.environ.update(env or {})
        run(*arguments, **changes)

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    return process


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("runs"), val_every=3)


def weights_of(path: str | Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).model


def same(left: str | Path, right: str | Path) -> bool:
    a, b = weights_of(left), weights_of(right)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_everything(trained: dict[str, Any]) -> None:
    folder = Path(trained["run"])
    assert folder.name == "train"
    assert trained["iterations"] == 6
    assert set(trained["metrics"]["mask"]) >= {"AP", "AP50", "APr", "APc", "APf"}
    assert json.loads((folder / "metrics.json").read_text())["counts"]["classes"] == 4
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["2", "3", "3", "4", "6", "6"]
    assert [row["protocol"] for row in rows if row["mask/AP"]] == ["lvis", "lvis"]
    again = load_config({"cfg": str(folder / "args.yaml")})
    assert again == complete_parts(load_config({**SMALL, "project": str(folder.parent), "val_every": 3}))
    best = load_checkpoint(trained["best"])
    assert (best.meta.num_classes, best.meta.stride, best.meta.data) == (4, 32, "shapes_lt")
    assert load_checkpoint(trained["last"]).metrics == trained["metrics"]


def test_the_trained_file_predicts(trained: dict[str, Any]) -> None:
    from aegl.data.preprocess import load_image
    from aegl.data.source import resolve_data

    config = load_config(SMALL)
    store = resolve_data("shapes_lt", data_dir=Path(), shapes=config.shapes, bands=config.bands).open("val")
    (result,) = predict(load_torch_backend(trained["best"]), [store.image_path(0)], conf=0.0, max_det=5)
    assert 0 < len(result) <= 5
    assert result.orig_size == load_image(store.image_path(0)).shape[:2]


def test_killed_run_resumes_bit_for_bit(trained: dict[str, Any], tmp_path: Path) -> None:
    process = forked(tmp_path, KillAt(5), val_every=3)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    last = tmp_path / "train" / "weights" / "last.pt"
    assert load_checkpoint(last).iteration == 3
    progress = Evaluations()
    resumed = run(tmp_path, resume=True, progress=progress)
    assert resumed["run"] == str(tmp_path / "train")
    assert same(last, trained["last"])
    assert same(resumed["best"], trained["best"])
    assert resumed["metrics"] == trained["metrics"]

    def steps(folder: str) -> list[str]:
        return [line.split(",")[0] for line in (Path(folder) / "results.csv").read_text().splitlines()]

    assert steps(resumed["run"]) == steps(trained["run"])
    (_, first), _ = evaluations(Path(trained["run"]) / "results.csv")
    title, figures, before = progress.shown[-1]  # that of step 3 is made again if the kill came before it was saved
    assert title == "step 6 (lvis, val)"
    for kind in ("box", "mask"):
        assert figures[kind] == {name: trained["metrics"][kind][name] for name in ("AP", "APr", "APc", "APf")}
        assert before[kind]["AP"] == pytest.approx(first[kind]["AP"], rel=1e-5)


def test_loading_processes_do_not_change_the_result(trained: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="SIGTERM after iteration 4"):
        run(tmp_path, KillAt(4, signal.SIGTERM), val_every=3, workers=2)
    resumed = run(tmp_path, resume=True, workers=1, weights=str(tmp_path / "train" / "weights" / "last.pt"))
    assert same(resumed["last"], trained["last"])


def test_two_processes_end_with_the_same_weights(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}

    class Keep(Callback):
        """Fails the run if a callback is called on another process than the main one."""

        def on_train_end(self, result: Any) -> None:
            assert os.environ["RANK"] == "0"

    ranks = [
        forked(tmp_path, Keep(), env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}, iterations=3)
        for rank in (0, 1)
    ]
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0]
    checkpoint = load_checkpoint(tmp_path / "train" / "weights" / "last.pt")
    assert checkpoint.training is not None and len(checkpoint.training.rng) == 2
    assert checkpoint.metrics["mask"] is not None


def test_start_from_trained_weights(trained: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="aegl"):
        changes = {"stage.reset": ["box_head.classifier"], "lr": 1e-9, "ema": False}
        run(tmp_path, weights=trained["best"], iterations=1, **changes)
    assert "the classifier starts afresh: stage.reset asks for it" in caplog.text
    assert "warmup_iterations=2: as long as the run of 1 steps" in caplog.text
    before, after = weights_of(trained["best"]), weights_of(tmp_path / "train" / "weights" / "last.pt")
    assert torch.allclose(before["box_head.fc1.weight"], after["box_head.fc1.weight"], atol=1e-6)
    assert not torch.allclose(before["box_head.classifier.weight"], after["box_head.classifier.weight"], atol=1e-3)


def test_wrong_requests(trained: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch=6: must be a multiple of accumulate=4"):
        train(
            load_config(SMALL).model_copy(update={"batch": 6, "accumulate": 4, "project": str(tmp_path)}),
            SilentProgress(),
        )
    with pytest.raises(ConfigError, match="data: not given"):
        run(tmp_path, data=None)
    with pytest.raises(ConfigError, match="iterations, epochs: neither"):
        run(tmp_path, iterations=None, epochs=None)
    with pytest.raises(CheckpointError, match="no run there has"):
        run(tmp_path / "empty", resume=True)
    with pytest.raises(CheckpointError, match=r"holds no args\.yaml"):
        run(tmp_path, resume=True, name="never_was")
    assert not list(tmp_path.iterdir())  # a refused request leaves nothing behind
    with pytest.raises(ConfigError, match="exists already"):
        run(Path(trained["run"]).parent, name="train")
