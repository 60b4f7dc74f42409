"""What happens besides training while a run goes on: rows in ``results.csv``, the progress bar, your own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegl.engine.results_csv import ResultsCsv

if TYPE_CHECKING:
    from aegl.progress import Progress


@dataclass(frozen=True)
class LogRecord:
    """Averages over the steps since the record before.

    Args:
        iteration: finished steps.
        total: steps of the whole run.
        epoch: finished share of epochs of the sampler.
        lr: learning rate of the last step.
        loss: sum of the terms.
        terms: the loss terms by name.
        images_per_second: throughput over all processes.
        seconds: time since this process began to train.
        eta_seconds: time left at that throughput.
        diagnostics: what the classification loss reports of its last step on this process.
    """

    iteration: int
    total: int
    epoch: float
    lr: float
    loss: float
    terms: Mapping[str, float]
    images_per_second: float
    seconds: float
    eta_seconds: float
    diagnostics: Mapping[str, float]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Args:
        iterations: finished steps.
        seconds: time this process trained.
        metrics: summary of the last evaluation; empty without one, and on all processes but the main one.
        best: fitness of ``best.pt``: mask AP, or box AP without masks; None without an evaluation.
    """

    iterations: int
    seconds: float
    metrics: Mapping[str, Any]
    best: float | None


class Callback:
    """Hooks of a run, called on the main process only, in the order of the trainer's list. Override what you need.

    An exception from a hook ends the run; the last checkpoint stays.
    """

    def on_train_start(self, iteration: int, total: int) -> None:
        """Training begins, or goes on, after ``iteration`` of ``total`` steps."""

    def on_step_end(self, iteration: int) -> None:
        """Step number ``iteration`` (from 1) is done. Reading tensors here stalls a GPU; use :meth:`on_log`."""

    def on_log(self, record: LogRecord) -> None:
        """``log_every`` steps are done, or an evaluation or the end is due."""

    def on_val_start(self, iteration: int) -> None:
        """An evaluation begins."""

    def on_val_end(self, iteration: int, summary: Mapping[str, Any]) -> None:
        """An evaluation gave ``summary`` (the JSON of ``aegl val``)."""

    def on_checkpoint(self, iteration: int, path: Path) -> None:
        """``path`` has been written."""

    def on_train_end(self, result: TrainResult) -> None:
        """Training is complete; not called when it was stopped or failed."""

    def on_exit(self) -> None:
        """The last call in any case: training is complete, was stopped, or failed."""


class CsvLogger(Callback):
    """Writes ``results.csv``.

    Args:
        results: the file.
        labels: constant columns of evaluation rows that make numbers comparable: protocol, split, hash of the data.
        figures: names of the figures written per evaluation, for boxes and for masks.
    """

    def __init__(self, results: ResultsCsv, *, labels: Mapping[str, str], figures: Sequence[str]) -> None:
        self._results = results
        self._labels = dict(labels)
        self._metrics = [f"{kind}/{figure}" for kind in ("box", "mask") for figure in figures]
        self._columns: list[str] = []
        self._record: dict[str, Any] = {}

    def on_log(self, record: LogRecord) -> None:
        """Append a row of training figures."""
        row = {
            "iteration": record.iteration,
            "epoch": record.epoch,
            "seconds": record.seconds,
            "lr": record.lr,
            "images_per_second": record.images_per_second,
            "loss": record.loss,
            **record.terms,
        }
        self._columns = [*row, *self._labels, *self._metrics]
        self._results.append(row, columns=self._columns)

    def on_val_end(self, iteration: int, summary: Mapping[str, Any]) -> None:
        """Append a row of evaluation figures."""
        values = {
            f"{kind}/{figure}": value
            for kind in ("box", "mask")
            for figure, value in (summary.get(kind) or {}).items()
            if f"{kind}/{figure}" in self._metrics
        }
        columns = self._columns or ["iteration", *self._labels, *self._metrics]
        self._results.append({"iteration": iteration, **self._labels, **values}, columns=columns)


class ProgressLogger(Callback):
    """Shows training on a :class:`aegl.progress.Progress`: loss, learning rate, throughput, time left, last AP."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._total = 0
        self._is_open = False

    def on_train_start(self, iteration: int, total: int) -> None:
        """Open the bar."""
        self._total = total
        self._open(iteration)

    def on_step_end(self, iteration: int) -> None:
        """Move the bar."""
        self._progress.update(1)

    def on_log(self, record: LogRecord) -> None:
        """Show the newest averages."""
        self._progress.update(
            0,
            loss=record.loss,
            **record.terms,
            lr=record.lr,
            images_per_s=record.images_per_second,
            eta_s=record.eta_seconds,
        )

    def on_val_start(self, iteration: int) -> None:
        """Close the bar: the evaluation shows its own."""
        self.on_exit()

    def on_val_end(self, iteration: int, summary: Mapping[str, Any]) -> None:
        """State the AP, and go on."""
        shown = [
            f"{kind} AP {_percent(figures.get('AP'))}" for kind in ("box", "mask") if (figures := summary.get(kind))
        ]
        self._progress.message(
            f"step {iteration}: {', '.join(shown)} ({summary.get('protocol')}, {summary.get('split')})"
        )
        if iteration < self._total:
            self._open(iteration)

    def on_exit(self) -> None:
        """Close the bar."""
        if self._is_open:
            self._progress.finish()
        self._is_open = False

    def _open(self, iteration: int) -> None:
        self._progress.start("train", self._total, "step")
        self._is_open = True
        self._progress.update(iteration)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
