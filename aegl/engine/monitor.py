"""Loss terms of the steps since the last log record, read from the device once per record."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from aegl.engine.distributed import World
from aegl.errors import RunError


class LossMonitor:
    """Keeps detached loss terms on the device until they are wanted, and finds the step that went wrong.

    Args:
        world: the processes; means are taken over all of them.
        describe_images: rows of the training set to words for a message, e.g. image ids and files.
    """

    def __init__(self, world: World, describe_images: Callable[[list[int]], str]) -> None:
        self._world = world
        self._describe = describe_images
        self._names: list[str] = []
        self._steps: list[tuple[int, Tensor, Tensor]] = []

    def add(self, iteration: int, terms: Mapping[str, Tensor], images: Tensor) -> None:
        """Note a step.

        Args:
            iteration: its number.
            terms: scalars on the device; the same names in every step.
            images: ``[n]`` int64 rows of its images, on the CPU.
        """
        self._names = list(terms)
        self._steps.append((iteration, torch.stack([term.detach().float() for term in terms.values()]), images))

    def flush(self) -> dict[str, float]:
        """Mean terms since the last call; empty if there was no step. Collective.

        Raises:
            RunError: if a term of any process was not finite; names the iteration, the terms and the images.
        """
        if not self._steps:
            return {}
        steps, self._steps = self._steps, []
        values = torch.stack([terms for _, terms, _ in steps])
        bad = (~values.isfinite()).any().to(values.dtype)
        sums = self._world.sum_(torch.cat([values.mean(dim=0), bad[None]]))
        *means, num_bad = sums.tolist()
        if num_bad:
            raise RunError(self._blame(values.tolist(), steps))
        return {name: mean / self._world.size for name, mean in zip(self._names, means, strict=True)}

    def _blame(self, values: list[list[float]], steps: list[tuple[int, Tensor, Tensor]]) -> str:
        for row, (iteration, _, images) in zip(values, steps, strict=True):
            wrong = [f"{name}={v}" for name, v in zip(self._names, row, strict=True) if v - v != 0]
            if wrong:
                return (
                    f"iteration {iteration}: the loss is not finite ({', '.join(wrong)}) on images "
                    f"{self._describe(images.tolist())}. last.pt holds the state of an earlier step; try a lower lr, "
                    "more warmup_iterations, clip_grad, or amp=none"
                )
        return "the loss of another process is not finite; that process names the images"
