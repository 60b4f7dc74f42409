"""A stand-in for training that leaves a run's files behind without the time that training takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aegl.config import Config, complete_parts, load_config, to_yaml
from aegl.progress import Progress, SilentProgress

Figures = Callable[[Config], float]


def metrics(box: float, mask: float) -> dict[str, Any]:
    """The summary of an evaluation; figures of bands are told apart by their decimals."""
    figures = {
        kind: {"AP": ap, "APr": ap + 0.01, "APc": ap + 0.02, "APf": None} for kind, ap in (("box", box), ("mask", mask))
    }
    rules = {"protocol": "lvis", "split": "val", "max_det": 300, "max_det_per": "image", "bands": ["r", "c", "f"]}
    return {**rules, **figures}


def write_run(folder: Path, config: Config, *, box: float, mask: float, ground_truth: str = "same") -> None:
    """A finished run's files, those that are read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "args.yaml").write_text(to_yaml(complete_parts(config)))
    content = {"metrics": metrics(box, mask), "iterations": 6, "seconds": 1.0, "ground_truth_hash": ground_truth}
    (folder / "train.json").write_text(json.dumps(content))


@dataclass
class Trainer:
    """Stands in for :func:`aegl.engine.build.train` and notes what it was asked for."""

    asked: list[Config] = field(default_factory=list)
    raises: dict[str, BaseException] = field(default_factory=dict)
    """Errors by method, raised after a first checkpoint."""
    ground_truth: dict[int, str] = field(default_factory=dict)
    """Hash of the ground truth by seed."""

    def __call__(self, config: Config, progress: Progress, callbacks: tuple[object, ...] = ()) -> dict[str, Any]:
        self.asked.append(config)
        folder = Path(config.project) / str(config.name)
        if config.resume:
            config = load_config({"cfg": str(folder / "args.yaml")})
        if config.method in self.raises:
            (folder / "weights").mkdir(parents=True, exist_ok=True)
            (folder / "args.yaml").write_text(to_yaml(complete_parts(config)))
            (folder / "weights" / "last.pt").touch()
            raise self.raises[config.method]
        ap = 0.1 * (1 + config.seed) + (0.005 if config.method == "fbs_aegl" else 0)
        ground_truth = self.ground_truth.get(config.seed, "same")
        write_run(folder, config, box=ap + 0.1, mask=ap, ground_truth=ground_truth)
        return {}

    @property
    def trained(self) -> list[tuple[str, int]]:
        """Method and seed of everything that was asked for."""
        return [(config.method, config.seed) for config in self.asked]


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """In the place of training."""
    stand_in = Trainer()
    monkeypatch.setattr("aegl.engine.build.train", stand_in)
    return stand_in


class Messages(SilentProgress):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        """See :class:`aegl.progress.Progress`."""
        self.lines.append(text)


@pytest.fixture
def messages() -> Messages:
    """A progress that keeps what was said."""
    return Messages()


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Any]:
    """Keys of a comparison of two methods with two seeds."""
    keys = {"data": "shapes_lt", "model": "mini", "iterations": 6, "device": "cpu", "project": str(tmp_path)}
    return {**keys, "methods": "softmax_ce,fbs_aegl", "seeds": 2}
