"""What loggers have in common whose system keeps the run elsewhere and takes nothing back."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aegl.engine.callbacks import Callback, LogRecord, TrainResult
from aegl.engine.loggers.figures import evaluation_figures, training_figures
from aegl.engine.runs import write_text

FOLDER = "loggers"
"""Folder of the run with what each system calls it, and how far it has been told of it."""


class Tracker(Callback):
    """Tells a system each training record and each evaluation once, though the run is killed and resumed in between.

    How far the system has been told stands in ``loggers/<name>.json`` in the run's folder, with the system's own name
    for the run.

    Args:
        name: of the system.
        folder: of the run.
        config: dotted keys to values.
        resumed: whether the run goes on from a checkpoint; if not, whatever was told of this folder is another run.
    """

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any], *, resumed: bool) -> None:
        self.folder = folder
        self.config = config
        self._path = folder / FOLDER / f"{name}.json"
        self._told: dict[str, Any] = {"run": None, "train": 0, "val": 0}
        if resumed and self._path.is_file():
            self._told = json.loads(self._path.read_text(encoding="utf-8"))
        self._is_open = False
        self._complete = False

    @abstractmethod
    def begin(self, run: str | None) -> str:
        """Open the run of that name, or a new one, and give its name."""

    @abstractmethod
    def record(self, figures: Mapping[str, float], iteration: int) -> None:
        """Take figures of an iteration. Called once each for the training record and the evaluation of one."""

    @abstractmethod
    def end(self, *, complete: bool) -> None:
        """Close the run; ``complete`` is false where it was stopped or failed."""

    def on_train_start(self, iteration: int, total: int) -> None:
        """Open the run."""
        self._open()

    def on_log(self, record: LogRecord) -> None:
        """Tell a training record."""
        self._tell("train", training_figures(record), record.iteration)

    def on_val_end(self, iteration: int, summary: Mapping[str, Any]) -> None:
        """Tell an evaluation."""
        self._tell("val", evaluation_figures(summary), iteration)

    def on_train_end(self, result: TrainResult) -> None:
        """Note that the run is complete."""
        self._complete = True

    def on_exit(self) -> None:
        """Close the run."""
        if self._is_open:
            self.end(complete=self._complete)

    def _tell(self, part: str, figures: Mapping[str, float], iteration: int) -> None:
        if iteration <= self._told[part]:
            return
        if not self._is_open:  # the system could not be reached when training began
            self._open()
        self.record({f"{part}/{name}": value for name, value in figures.items()}, iteration)
        self._told[part] = iteration
        self._write()

    def _open(self) -> None:
        self._told["run"] = self.begin(self._told["run"])
        self._is_open = True
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        write_text(self._path, json.dumps(self._told) + "\n")
