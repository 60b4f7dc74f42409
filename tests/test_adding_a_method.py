"""The worked example of ``docs/adding_a_method.md``: its two files, taken out of the page, are all it takes."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from aegl.config import load_config
from aegl.engine.build import train
from aegl.engine.callbacks import Callback
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.signals import StoppedError
from aegl.errors import ConfigError
from aegl.longtail import LOSSES
from aegl.progress import SilentProgress
from aegl.tasks import export, val

PAGE = Path(__file__).parents[1] / "docs" / "adding_a_method.md"
SMALL: dict[str, Any] = {
    "data": "shapes_lt",
    "model": "mini",
    "shapes": {"classes": 4, "max_instances": 10, "imbalance": 5, "val_per_class": 1, "imgsz": 64},
    "neck.channels": 16,
    "box.hidden": 32,
    "mask.channels": 8,
    "imgsz": 64,
    "max_size": 64,
    "train_imgsz": [64],
    "batch": 2,
    "iterations": 40,
    "warmup_iterations": 0,
    "checkpoint_every": 10,
    "workers": 0,
    "device": "cpu",
}


class StopAt(Callback):
    def on_step_end(self, iteration: int) -> None:
        if iteration == 25:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, written where a user might."""
    folder = tmp_path_factory.mktemp("mine")
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for name, text in blocks:
        (folder / name).write_text(text, encoding="utf-8")
    assert [name for name, _ in blocks] == ["rarity_softened.py", "rarity_softened.yaml"]
    return folder / "rarity_softened.yaml"


@pytest.fixture(scope="module")
def trained(method: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.set_num_threads(1)
    project = tmp_path_factory.mktemp("runs")
    return train(load_config({**SMALL, "method": str(method), "project": str(project)}), SilentProgress())


def test_its_options_are_known(method: Path) -> None:
    config = load_config({"method": str(method), "loss.softness": "0.5"})
    assert config.loss.options() == {"softness": 0.5} and config.sampler == "rfs"
    with pytest.raises(ConfigError, match=r"loss\.softness=-1: must be a number >= 0"):
        load_config({"method": str(method), "loss.softness": -1})
    with pytest.raises(ConfigError, match=r"loss\.softnes: unknown option .* did you mean softness"):
        load_config({"method": str(method), "loss.softnes": 1})


def test_softness_zero_is_the_plain_loss(method: Path, stats_of_four: Any) -> None:
    name = str(method.with_suffix(".py"))
    logits, labels = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 5
    plain = LOSSES.build("sigmoid_bce", stats_of_four)(logits, labels)["cls"]
    assert LOSSES.build(name, stats_of_four, softness=0)(logits, labels)["cls"] == pytest.approx(float(plain))
    assert LOSSES.build(name, stats_of_four, softness=1)(logits, labels)["cls"] < plain


@pytest.fixture
def stats_of_four() -> Any:
    import numpy as np

    from aegl.longtail.statistics import ClassStatistics

    counts = np.array([1, 10, 100, 1000])
    return ClassStatistics(counts, counts, 1111, np.array([0, 0, 1, 2]))


def test_it_resumes_as_if_never_stopped(method: Path, trained: dict[str, Any], tmp_path: Path) -> None:
    config = load_config({**SMALL, "method": str(method), "project": str(tmp_path), "name": "x"})
    with pytest.raises(StoppedError):
        train(config, SilentProgress(), (StopAt(),))
    again = train(config.model_copy(update={"resume": True}), SilentProgress())
    a, b = load_checkpoint(trained["last"]).model, load_checkpoint(again["last"]).model
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_it_is_evaluated_and_exported(trained: dict[str, Any], tmp_path: Path) -> None:
    summary = val({"weights": trained["best"], "project": str(tmp_path), "device": "cpu"}, SilentProgress())
    assert summary["box"] == trained["metrics"]["box"]
    exported = export({"weights": trained["best"], "device": "cpu"}, SilentProgress())
    assert exported["parity"]["passed"] is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "must define exactly one public ClassificationLoss, it has none"),
        ("import no_such_module\n", r"cannot be imported \(ModuleNotFoundError"),
        ("def f(:\n", r"cannot be imported \(SyntaxError"),
    ],
)
def test_a_file_that_is_no_loss_is_one_message(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "loss.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config({"loss.name": str(tmp_path / "loss.py")})


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"method=.*none\.yaml: no such file"):
        load_config({"method": str(tmp_path / "none.yaml")})
    (tmp_path / "m.yaml").write_text("loss: {name: none.py}\n")
    with pytest.raises(ConfigError, match=r"loss\.name=.*none\.py: no such file"):
        load_config({"method": str(tmp_path / "m.yaml")})
