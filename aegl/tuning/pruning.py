"""Ends trials early that are worse than others were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from aegl.engine.callbacks import Callback, StopTraining
from aegl.engine.fitness import figure

PRUNED = "pruned by the study"
"""Why such a run stopped, in its ``train.json``."""


class Trial(Protocol):
    """What is needed of an Optuna trial."""

    def report(self, value: float, step: int) -> None:
        """Take the value of a step."""

    def should_prune(self) -> bool:
        """Whether the trial is to be ended."""


class Pruning(Callback):
    """Reports each evaluation to the study and ends the run when that finds it worse than the others.

    Args:
        trial: of the study.
        objective: name of the figure, see :func:`aegl.engine.fitness.figure`.
        earlier: iteration and value of the evaluations before this process began.
    """

    def __init__(self, trial: Trial, objective: str, *, earlier: Iterable[tuple[int, float]] = ()) -> None:
        self._trial = trial
        self._objective = objective
        self._earlier = list(earlier)
        self._total = 0

    def on_train_start(self, iteration: int, total: int) -> None:
        """Report what was evaluated before."""
        self._total = total
        for step, value in self._earlier:
            self._trial.report(value, step)

    def on_val_end(self, iteration: int, summary: Mapping[str, Any]) -> None:
        """Report one more, and stop if the study says so."""
        value = figure(summary, self._objective)
        if value is None:
            return
        self._trial.report(value, iteration)
        if iteration < self._total and self._trial.should_prune():
            raise StopTraining(PRUNED)
