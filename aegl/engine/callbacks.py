"""What happens besides training while a run goes on: rows in ``results.csv``, the progress bar, your own code."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegl.engine.results_csv import KINDS, ResultsCsv
from aegl.errors import AeglError, RunError

if TYPE_CHECKING:
    from aegl.progress import Figures, Progress

LOGGER = logging.getLogger("aegl")


class StopTraining(Exception):  # noqa: N818 (a request, like StopIteration)
    """Raised by a hook to end the run early and well: evaluated if that was not just done, saved, and complete.

    Args:
        reason: shown to the user and written into ``train.json``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason or "a callback asked for it"


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
        data_share: share of the time that this process waited for its data loader, in [0, 1].
        seconds: time since this process began to train.
        eta_seconds: time left at that throughput.
        diagnostics: what the classification loss reports of its last step on this process.
        memory_mb: the most memory that this process needed so far, in MiB: of tensors on its GPU, on the CPU of all of
            it; None on systems that do not tell.
    """

    iteration: int
    total: int
    epoch: float
    lr: float
    loss: float
    terms: Mapping[str, float]
    images_per_second: float
    data_share: float
    seconds: float
    eta_seconds: float
    diagnostics: Mapping[str, float]
    memory_mb: float | None = None


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Args:
        iterations: finished steps.
        seconds: time this process trained.
        metrics: summary of the last evaluation; empty without one, and on all processes but the main one.
        best: fitness of ``best.pt``: mask AP, or box AP without masks; None without an evaluation.
        stopped: why a callback ended the run before its last step; None where none did.
    """

    iterations: int
    seconds: float
    metrics: Mapping[str, Any]
    best: float | None
    stopped: str | None = None


class Callback:
    """Hooks of a run, called on the main process only, in the order of the trainer's list. Override what you need.

    A hook that raises :class:`StopTraining` ends the run as if its last step had been reached: after the step or the
    evaluation that the hook belongs to (of several processes one step later), evaluated and saved. Any other exception
    ends the run as failed; the last checkpoint stays.
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
        """Training is complete, if early; not called when it was stopped by a signal or failed."""

    def on_exit(self) -> None:
        """The last call in any case: training is complete, was stopped, or failed."""


def call(callback: Callback, hook: str, *args: Any) -> str:
    """Call a hook of a callback.

    Returns:
        Why the callback asks the run to end; empty if it does not.

    Raises:
        RunError: for an exception of the hook's own, naming the callback and the line. An ``AeglError`` stays itself.
    """
    try:
        getattr(callback, hook)(*args)
    except StopTraining as request:
        LOGGER.info("%s ends the run: %s", type(callback).__name__, request.reason)
        return request.reason
    except AeglError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"
        raise RunError(
            f"callback {type(callback).__name__}: {hook} raised {problem}; the run ends, its last checkpoint stays"
        ) from error
    return ""


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
        self._metrics = [f"{kind}/{figure}" for kind in KINDS for figure in figures]
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
            "data_share": record.data_share,
            "memory_mb": record.memory_mb,
            "loss": record.loss,
            **record.terms,
        }
        self._columns = [*row, *self._labels, *self._metrics]
        self._results.append(row, columns=self._columns)

    def on_val_end(self, iteration: int, summary: Mapping[str, Any]) -> None:
        """Append a row of evaluation figures."""
        values = {
            f"{kind}/{figure}": value
            for kind in KINDS
            for figure, value in (summary.get(kind) or {}).items()
            if f"{kind}/{figure}" in self._metrics
        }
        columns = self._columns or ["iteration", *self._labels, *self._metrics]
        self._results.append({"iteration": iteration, **self._labels, **values}, columns=columns)

    def on_train_end(self, result: TrainResult) -> None:
        """Insist on the rows that a full disk held up."""
        self._results.flush()


class ProgressLogger(Callback):
    """Shows training on a :class:`aegl.progress.Progress`: losses, throughput, memory, AP of every evaluation.

    Args:
        progress: where.
        before: figures in [0, 1] of the evaluation before the first one that is shown, by kind and name; empty if none.
    """

    def __init__(self, progress: Progress, before: Figures | None = None) -> None:
        self._progress = progress
        self._before = before or {}
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
        """Show the newest averages, what matters most first."""
        memory = {} if record.memory_mb is None else {"memory_mb": record.memory_mb}
        self._progress.update(
            0,
            loss=record.loss,
            images_per_s=record.images_per_second,
            **memory,
            lr=record.lr,
            **record.terms,
            data_share=record.data_share,
            eta_s=record.eta_seconds,
        )

    def on_val_start(self, iteration: int) -> None:
        """Close the bar: the evaluation shows its own."""
        self.on_exit()

    def on_val_end(self, iteration: int, summary: Mapping[str, Any]) -> None:
        """Show AP, of all classes and of every band, and go on."""
        names = ["AP", *(f"AP{band}" for band in summary.get("bands", ()))]
        found = {kind: {name: figures.get(name) for name in names} for kind in KINDS if (figures := summary.get(kind))}
        self._progress.figures(
            f"step {iteration} ({summary.get('protocol')}, {summary.get('split')})", found, self._before
        )
        self._before = found
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
