"""How long a run is, and when it does what."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainPlan:
    """Length and rhythm of a run; in optimiser steps where nothing else is said.

    Args:
        iterations: length of the run.
        batch: images per step over all processes.
        accumulate: batches per step of each process.
        epoch_images: images of one epoch of the sampler, for display.
        log_every: steps between log records.
        checkpoint_every: steps between checkpoints.
        checkpoint_seconds: seconds after which the next log record is followed by a checkpoint.
        val_every: steps between evaluations, 0 for one at the end.
        max_skipped: steps in a row whose loss or gradient may be not finite; one more ends the run.
        loss_limit: a larger loss counts as not finite.
    """

    iterations: int
    batch: int
    accumulate: int = 1
    epoch_images: float = 1.0
    log_every: int = 20
    checkpoint_every: int = 1000
    checkpoint_seconds: float = math.inf
    val_every: int = 0
    max_skipped: int = 0
    loss_limit: float = math.inf

    def val_due(self, iteration: int) -> bool:
        """Whether the model is evaluated after this step."""
        if iteration == 0:
            return False
        return iteration == self.iterations or (self.val_every > 0 and iteration % self.val_every == 0)
