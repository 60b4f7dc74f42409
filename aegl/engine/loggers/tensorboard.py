"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from aegl.engine.callbacks import Callback, LogRecord
from aegl.engine.loggers.figures import evaluation_figures, training_figures


class TensorBoardLogger(Callback):
    """Writes ``tensorboard/train`` and ``tensorboard/val``, which TensorBoard shows as two curves of one run.

    They are two because a run that was killed while it was evaluated keeps the training record of that step and makes
    the evaluation again: each continues behind its own last step, and TensorBoard drops what stands beyond it.

    Args:
        folder: of the run.
        config: dotted keys to values, shown as text.
        logged_until: last iteration whose training record stays.
        evaluated_until: last iteration whose evaluation stays.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, logged_until: int, evaluated_until: int) -> None:
        self._folder = folder / "tensorboard"
        self._config = config
        self._first = {"train": logged_until + 1, "val": evaluated_until + 1}
        self._writers: dict[str, SummaryWriter] = {}

    def on_train_start(self, iteration: int, total: int) -> None:
        """Write the configuration."""
        table = ["| key | value |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in self._config.items())]
        self._writer("train").add_text("config", "\n".join(table), iteration)

    def on_log(self, record: LogRecord) -> None:
        """Write a training record."""
        self._write("train", training_figures(record), record.iteration)

    def on_val_end(self, iteration: int, summary: Mapping[str, Any]) -> None:
        """Write an evaluation."""
        self._write("val", evaluation_figures(summary), iteration)

    def on_exit(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, part: str) -> SummaryWriter:
        if part not in self._writers:
            self._writers[part] = SummaryWriter(str(self._folder / part), purge_step=self._first[part])
        return self._writers[part]

    def _write(self, part: str, figures: Mapping[str, float], iteration: int) -> None:
        writer = self._writer(part)
        for name, value in figures.items():
            writer.add_scalar(name, value, iteration)
        writer.flush()
