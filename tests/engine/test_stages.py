"""Training in stages: what comes before, what is trained, what starts afresh, and going on after an interruption."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aegl.config import load_config
from aegl.engine.build import train
from aegl.engine.callbacks import Callback
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.signals import StoppedError
from aegl.engine.stages import parts_of, stage_before
from aegl.errors import ConfigError
from aegl.models.factory import build_model
from aegl.progress import SilentProgress

SMALL: dict[str, Any] = {
    "data": "shapes_lt",
    "model": "mini",
    "method": "sigmoid_bce",
    "shapes": {"classes": 4, "max_instances": 12, "imbalance": 6, "val_per_class": 2, "imgsz": 64},
    "neck.channels": 16,
    "box.hidden": 32,
    "mask.channels": 8,
    "imgsz": 64,
    "max_size": 64,
    "train_imgsz": [64],
    "batch": 2,
    "iterations": 4,
    "warmup_iterations": 0,
    "lr": 0.01,
    "checkpoint_every": 1,
    "log_every": 1,
    "workers": 0,
    "device": "cpu",
    "stage.after": "softmax_ce+sampler=rfs",
    "stage.length": 0.5,
    "stage.lr": 0.1,
    "stage.trainable": ["box_head.classifier"],
}


def run(project: Path, *callbacks: Callback, **changes: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    return train(load_config({**SMALL, "project": str(project), **changes}), SilentProgress(), callbacks)


def state(path: str | Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("runs"))


class Interrupt(Callback):
    """Asks the run to stop after some steps of its own."""

    def __init__(self, after: int) -> None:
        self.left = after

    def on_step_end(self, iteration: int) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_stage_before_is_trained_first_with_its_own_method_and_length(trained: dict[str, Any]) -> None:
    folder = Path(trained["run"])
    before = load_checkpoint(folder / "before" / "weights" / "last.pt")
    own = load_checkpoint(trained["last"])
    assert (before.iteration, own.iteration) == (4, 2)
    assert (before.config["loss"]["name"], before.config["sampler"]) == ("softmax_ce", "rfs")
    assert (own.config["loss"]["name"], own.config["sampler"]) == ("sigmoid_bce", "random")
    assert before.config["lr"] == own.config["lr"] == 0.01
    assert json.loads((folder / "before" / "train.json").read_text())["iterations"] == 4


def test_only_the_named_parts_are_trained(trained: dict[str, Any]) -> None:
    before, own = state(Path(trained["run"]) / "before" / "weights" / "best.pt"), state(trained["last"])
    changed = {name for name in own if name not in before or not torch.equal(before[name], own[name])}
    assert changed == {"box_head.classifier.weight", "box_head.classifier.bias"}


def test_the_learning_rate_is_a_share(trained: dict[str, Any]) -> None:
    rows = (Path(trained["run"]) / "results.csv").read_text().splitlines()
    lr = rows[0].split(",").index("lr")
    assert float(rows[1].split(",")[lr]) == pytest.approx(0.001)


def test_weights_that_are_given_replace_the_stage_before(trained: dict[str, Any], tmp_path: Path) -> None:
    start = Path(trained["run"]) / "before" / "weights" / "best.pt"
    result = run(tmp_path, weights=str(start))
    assert not (Path(result["run"]) / "before").exists()
    a, b = state(result["last"]), state(trained["last"])
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("steps", [2, 5], ids=["in the stage before", "in its own stage"])
def test_an_interrupted_run_goes_on_where_it_was(trained: dict[str, Any], tmp_path: Path, steps: int) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, Interrupt(steps), name="x")
    result = train(
        load_config({"project": str(tmp_path), "name": "x", "resume": True, "device": "cpu"}), SilentProgress()
    )
    a, b = state(result["last"]), state(trained["last"])
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_parts_of_this_stage_do_not_reach_the_one_before(tmp_path: Path) -> None:
    config = load_config({**SMALL, "loss.prior_prob": 0.2, "box.classifier": "cosine", "seed": 3})
    before = stage_before(config, tmp_path)
    assert before.loss.name == "softmax_ce" and before.loss.options() == {}
    assert (before.box.classifier, before.seed, before.stage.after) == ("cosine", 3, None)
    assert (before.project, before.name) == (str(tmp_path), "before")


def test_what_is_wrong_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    for changes, message in (
        ({"stage.trainable": ["box_head.clasifier"]}, r"stage\.trainable=box_head\.clasifier: .*box_head\.classifier"),
        ({"stage.reset": ["rpm"]}, r"stage\.reset=rpm: no part of the model.*backbone, neck, rpn"),
        ({"stage.after": "softmax_c"}, r"stage\.after=softmax_c: .*unknown method.*softmax_ce"),
        ({"stage.after": "softmax_ce+lr=x"}, r"stage\.after=.*lr=x"),
        ({"stage.after": "lr=1"}, r"stage\.after=lr=1: .*does not begin with a name"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(tmp_path, **changes)
    assert not list(tmp_path.rglob("last.pt"))


def test_frozen_layers_stay_in_evaluation_mode_and_method_state_does_not() -> None:
    from aegl.longtail.statistics import ClassStatistics

    counts = torch.arange(1, 5).numpy()
    model = build_model(
        load_config({**SMALL, "backbone.norm": "batch"}), ClassStatistics(counts, counts, 9, counts * 0)
    )
    model.freeze_all_but(parts_of(model, ["mask_head"], "x"))
    model.train()
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    assert model.training and model.rpn.training and model.box_head.loss.training
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"mask_head"}
