"""Ends a run that no longer gets better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aegl.engine.callbacks import Callback, StopTraining
from aegl.engine.fitness import fitness
from aegl.engine.results_csv import rounded


class EarlyStopping(Callback):
    """Stops training after ``patience`` evaluations in a row none of which beat the best one.

    What it knows follows from the evaluations, so a resumed run goes on counting where it was.

    Args:
        patience: evaluations without a better fitness, at least 1.
        earlier: fitness of the evaluations before this process began, in their order (see
            :func:`aegl.engine.results_csv.evaluations`).
    """

    def __init__(self, patience: int, *, earlier: Sequence[float] = ()) -> None:
        self._patience = patience
        self._earlier = list(earlier)
        self._best = float("-inf")
        self._since = 0
        self._total = 0

    def on_train_start(self, iteration: int, total: int) -> None:
        """Count what was evaluated before; a run that was killed after its last evaluation stops at once."""
        self._total = total
        for score in self._earlier:
            self._count(score)
        self._earlier = []
        self._stop_if_hopeless(iteration)

    def on_val_end(self, iteration: int, summary: Mapping[str, Any]) -> None:
        """Count one more."""
        self._count(fitness(summary))
        self._stop_if_hopeless(iteration)

    def _count(self, score: float) -> None:
        score = rounded(score)  # as it would be read back by a resumed run
        self._since = 0 if score > self._best else self._since + 1
        self._best = max(score, self._best)

    def _stop_if_hopeless(self, iteration: int) -> None:
        if self._since >= self._patience and iteration < self._total:
            count = f"{self._since} evaluations" if self._since > 1 else "1 evaluation"
            raise StopTraining(
                f"patience={self._patience}: {count} in a row without more than AP {100 * self._best:.1f}"
            )
