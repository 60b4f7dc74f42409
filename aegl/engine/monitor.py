"""Loss terms of the steps since the last log record, read from the device once per record, and which steps failed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import torch
from torch import Tensor

from aegl.engine.distributed import World
from aegl.engine.stepper import Step
from aegl.errors import RunError

LOGGER = logging.getLogger("aegl")

_ADVICE = "No checkpoint holds this step; try a lower lr, more warmup_iterations, clip_grad, or amp=none"


class LossMonitor:
    """Keeps detached loss terms on the device until they are wanted, and names the steps that failed.

    Args:
        world: the processes; means are taken over all of them.
        describe_images: rows of the training set to words for a message, e.g. image ids and files.
        max_skipped: failed steps in a row that do not end the run; the caller has kept them out of the weights.
        loss_limit: a larger loss is one of the reasons why a step fails.
    """

    def __init__(
        self,
        world: World,
        describe_images: Callable[[list[int]], str],
        *,
        max_skipped: int = 0,
        loss_limit: float = math.inf,
    ) -> None:
        self._world = world
        self._describe = describe_images
        self._max_skipped = max_skipped
        self._loss_limit = loss_limit
        self._names: list[str] = []
        self._steps: list[tuple[int, Tensor, Tensor]] = []
        self._in_row = self._skipped = 0

    def add(self, iteration: int, step: Step) -> None:
        """Note a step.

        Args:
            iteration: its number.
            step: with the same names of terms in every step.
        """
        self._names = list(step.terms)
        row = torch.stack([*(term.detach().float() for term in step.terms.values()), step.failed.float()])
        self._steps.append((iteration, row, step.images))

    def flush(self) -> dict[str, float]:
        """Mean terms since the last call, over the steps that did not fail; empty if there was no step. Collective.

        Raises:
            RunError: if more than ``max_skipped`` steps in a row failed on any process; names iteration and images.
        """
        if not self._steps:
            return {}
        steps, self._steps = self._steps, []
        rows = torch.stack([row for _, row, _ in steps])
        terms, failed = rows[:, :-1], rows[:, -1]
        is_good = (failed == 0) & terms.isfinite().all(dim=1)
        sums = torch.where(is_good[:, None], terms, 0.0).sum(dim=0)
        *totals, num_good = self._world.sum_(torch.cat([sums, is_good.sum()[None].float()])).tolist()
        if num_good < len(steps) * self._world.size:
            self._look_at_failures(steps, ~is_good)
        means = [total / num_good if num_good else math.nan for total in totals]
        return dict(zip(self._names, means, strict=True))

    def _look_at_failures(self, steps: list[tuple[int, Tensor, Tensor]], failed: Tensor) -> None:
        anywhere = self._world.sum_(failed.float()).tolist()
        for (iteration, row, images), number in zip(steps, anywhere, strict=True):
            if not number:
                self._in_row = 0
                continue
            self._in_row += 1
            self._skipped += 1
            what = f"iteration {iteration}: {self._blame(row, images)}"
            if self._in_row > self._max_skipped:
                limit = f"; more than max_skipped={self._max_skipped} steps in a row" if self._max_skipped else ""
                raise RunError(f"{what}{limit}. {_ADVICE}")
            LOGGER.warning("%s. The step is left out (%d so far)", what, self._skipped)

    def _blame(self, row: Tensor, images: Tensor) -> str:
        """What was wrong with a step, in the words of every process whose loss was. Collective."""
        values = [each.tolist()[:-1] for each in self._world.gather(row)]
        counts = [int(each) for each in self._world.gather(torch.tensor(len(images)))]
        padded = torch.full((max(counts),), -1, dtype=torch.int64)
        padded[: len(images)] = images
        rows = [each[:count].tolist() for each, count in zip(self._world.gather(padded), counts, strict=True)]
        wrong = [rank for rank, terms in enumerate(values) if self._reason(terms)]
        if not wrong:
            losses = ", ".join(f"{sum(terms):g}" for terms in values)
            of_all = [row for own in rows for row in own]
            return f"the gradient is not finite, though the loss is ({losses}), on images {self._describe(of_all)}"
        return "; ".join(f"{self._reason(values[rank])} on images {self._describe(rows[rank])}" for rank in wrong)

    def _reason(self, terms: list[float]) -> str | None:
        """Why a loss counts as not finite; None if it does not."""
        wrong = {name: value for name, value in zip(self._names, terms, strict=True) if not math.isfinite(value)}
        if wrong:
            return f"the loss is not finite ({', '.join(f'{name}={value:g}' for name, value in wrong.items())})"
        if sum(terms) > self._loss_limit:
            return f"the loss {sum(terms):g} is above loss_limit={self._loss_limit:g}"
        return None
