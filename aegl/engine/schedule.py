"""The learning rate as a pure function of the iteration: resuming needs no state and can make no jump."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up times a step, cosine or constant course.

    Args:
        lr: peak learning rate.
        iterations: length of training in steps.
        kind: course after (and, for steps, during) the warm-up.
        warmup_iterations: steps of warm-up.
        warmup_factor: share of the learning rate at step 0, rising linearly to 1 at ``warmup_iterations``.
        milestones: shares of training in (0, 1] at which a step schedule drops.
        gamma: factor of each drop.
    """

    lr: float
    iterations: int
    kind: Literal["step", "cosine", "constant"] = "step"
    warmup_iterations: int = 0
    warmup_factor: float = 0.001
    milestones: Sequence[float] = ()
    gamma: float = 0.1

    def __call__(self, iteration: int) -> float:
        """Learning rate of the step number ``iteration`` (from 0)."""
        return self.lr * self._warmup(iteration) * self._course(iteration)

    def _warmup(self, iteration: int) -> float:
        if iteration >= self.warmup_iterations:
            return 1.0
        return self.warmup_factor + (1 - self.warmup_factor) * iteration / self.warmup_iterations

    def _course(self, iteration: int) -> float:
        if self.kind == "constant":
            return 1.0
        if self.kind == "step":
            drops = sum(iteration >= round(share * self.iterations) for share in self.milestones)
            return float(self.gamma**drops)
        rest = self.iterations - self.warmup_iterations
        done = min(max(iteration - self.warmup_iterations, 0) / rest, 1.0) if rest > 0 else 0.0
        return 0.5 * (1 + math.cos(math.pi * done))
