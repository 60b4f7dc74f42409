"""A stand-in for training that scores a configuration at once, and tells the callbacks as training does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aegl.config import Config, complete_parts, load_config, to_yaml
from aegl.engine.callbacks import Callback, StopTraining
from aegl.progress import Progress, SilentProgress

QUIET = SilentProgress()


@dataclass
class Trainer:
    """In the place of :func:`aegl.engine.build.train`: AP is best at lr=0.01, and grows over four evaluations."""

    asked: list[Config] = field(default_factory=list)
    before: Callable[[Config], None] = lambda config: None

    def __call__(self, config: Config, progress: Progress, callbacks: tuple[Callback, ...] = ()) -> dict[str, Any]:
        self.asked.append(config)
        folder = Path(config.project) / str(config.name)
        if config.resume:
            config = load_config({"cfg": str(folder / "args.yaml")})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "args.yaml").write_text(to_yaml(complete_parts(config)))
        (folder / "weights").mkdir(exist_ok=True)
        (folder / "weights" / "last.pt").touch()
        self.before(config)
        final = 0.5 - abs(config.lr - 0.01)
        rows = ["iteration,protocol,box/AP,mask/AP,mask/APr"]
        stopped = None
        for callback in callbacks:
            callback.on_train_start(0, 8)
        for step in (2, 4, 6, 8) if stopped is None else ():
            ap = round(final * step / 8, 6)
            summary = {"box": {"AP": ap}, "mask": {"AP": ap, "APr": 1 - ap}}
            rows.append(f"{step},lvis,{ap},{ap},{1 - ap}")
            for callback in callbacks:
                try:
                    callback.on_val_end(step, summary)
                except StopTraining as stop:
                    stopped = stop.reason
            if stopped:
                break
        (folder / "results.csv").write_text("\n".join(rows) + "\n")
        content = {"metrics": summary, "fitness": ap, "stopped": stopped, "iterations": step, "seconds": 1.0}
        (folder / "train.json").write_text(json.dumps(content))
        return content


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """In the place of training."""
    stand_in = Trainer()
    monkeypatch.setattr("aegl.engine.build.train", stand_in)
    return stand_in


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Any]:
    """Keys of a search of three trials."""
    keys = {"data": "shapes_lt", "model": "mini", "iterations": 8, "device": "cpu", "project": str(tmp_path)}
    return {**keys, "trials": 3, "startup_trials": 2, "space.lr": "0.001..0.4:log"}
