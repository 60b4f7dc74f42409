"""Weights & Biases."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from aegl.engine.loggers.tracker import Tracker

PROJECT = "aegl"
"""Project of the runs, unless ``WANDB_PROJECT`` names one."""


class WandbLogger(Tracker):
    """Records a run with Weights & Biases, whose own environment variables hold: ``WANDB_MODE=offline``, say.

    Args:
        folder: of the run; wandb's files lie in ``wandb/`` in it.
        config: dotted keys to values.
        resumed: whether the run goes on from a checkpoint.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, resumed: bool) -> None:
        super().__init__("wandb", folder, config, resumed=resumed)
        self._run: Any = None

    def begin(self, run: str | None) -> str:
        """Open it; a resumed run keeps its id."""
        identifier = run or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", self.folder.name),
            id=identifier,
            resume="allow",
            dir=str(self.folder),
            config=dict(self.config),
            settings=wandb.Settings(console="off"),
        )
        # Not wandb's own step: that one refuses an evaluation told after a later record.
        self._run.define_metric("iteration")
        self._run.define_metric("*", step_metric="iteration")
        return identifier

    def record(self, figures: Mapping[str, float], iteration: int) -> None:
        """Tell it."""
        self._run.log({"iteration": iteration, **figures})

    def end(self, *, complete: bool) -> None:
        """Close it, and wait until everything is sent or written."""
        self._run.finish(exit_code=0 if complete else 1)
