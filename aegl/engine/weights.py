"""The weights folder of a run: ``last.pt`` to go on from, ``previous.pt`` if that is damaged, ``best.pt`` to use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from aegl.engine import runs
from aegl.engine.checkpoint import Checkpoint, TrainingState, save_checkpoint
from aegl.longtail.statistics import ClassStatistics
from aegl.metadata import ModelMeta


class WeightsFolder:
    """Writes the checkpoints of one run.

    Args:
        folder: where they go.
        meta: classes, preprocessing and operating point of the model.
        statistics: class counts of the training set.
        config: the run's configuration as plain values.
    """

    def __init__(self, folder: Path, *, meta: ModelMeta, statistics: ClassStatistics, config: dict[str, Any]) -> None:
        self.last = folder / runs.LAST_FILE
        self.best = folder / "best.pt"
        self._previous = folder / runs.PREVIOUS_FILE
        self._meta = meta
        self._statistics = statistics
        self._config = config
        self._last_is_ours = False
        self._unsaved_best: Checkpoint | None = None

    def save(
        self, model: dict[str, Tensor], metrics: Mapping[str, Any], training: TrainingState, *, is_best: bool
    ) -> None:
        """Write ``last.pt``, and ``best.pt`` (for use only, no training state) where ``is_best``.

        What was ``last.pt`` becomes ``previous.pt``, if this run wrote it: a file found there may be damaged, and would
        replace a good one. A ``best.pt`` that could not be written is tried again with the next call.

        Raises:
            RunError: if a file cannot be written; the older ones stay.
        """
        checkpoint = Checkpoint(
            model=model,
            meta=self._meta,
            statistics=self._statistics,
            config=self._config,
            iteration=training.iteration,
            metrics=dict(metrics),
            training=training,
        )
        # best.pt first: the state in last.pt claims that best.pt is as good as it says.
        if is_best:
            self._unsaved_best = checkpoint.for_inference()
        if self._unsaved_best is not None:
            save_checkpoint(self._unsaved_best, self.best)
            self._unsaved_best = None
        save_checkpoint(checkpoint, self.last, former=self._previous if self._last_is_ours else None)
        self._last_is_ours = True
