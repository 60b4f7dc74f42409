"""One optimiser step: forward, backward, accumulation, mixed precision, clipping, averaging."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from inspect import signature
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from aegl.engine.distributed import World
from aegl.engine.ema import ModelEma
from aegl.engine.guard import StepGuard
from aegl.engine.optim import set_lr
from aegl.types import Batch

Amp = Literal["none", "bf16", "fp16"]

_AMP_DTYPES = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_HAS_FORWARD_SYNC = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
_NO_BUFFER_SYNC: dict[str, Any] = {"forward_sync_buffers" if _HAS_FORWARD_SYNC else "broadcast_buffers": False}
"""Newer versions of torch deprecate the one name, older ones do not know the other."""


class Step(NamedTuple):
    """What a step was.

    Args:
        terms: the mean loss terms: detached scalars on the device.
        images: ``[n]`` int64 rows of the images in the training set, on the CPU.
        failed: whether loss or gradient was not finite: a bool scalar on the device.
    """

    terms: dict[str, Tensor]
    images: Tensor
    failed: Tensor


class Stepper:
    """Owns what changes in a step: weights, optimiser, gradient scaler and average.

    Args:
        model: ``model(images, targets)`` gives named scalar losses in training; on ``world.device``.
        optimizer: over the model's parameters.
        world: the processes; with several, gradients are averaged by DDP.
        amp: autocast precision; fp16 scales the loss.
        clip_grad: largest norm of the gradient, 0 for no clipping.
        ema: follows the model if given.
        loss_limit: a larger loss counts as not finite.
        skip: whether a step that is not finite shall leave no trace, so that training can go on.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        *,
        world: World,
        amp: Amp = "none",
        clip_grad: float = 0.0,
        ema: ModelEma | None = None,
        loss_limit: float = math.inf,
        skip: bool = False,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.ema = ema
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=amp == "fp16")
        self._world = world
        self._amp = amp
        self._clip_grad = clip_grad
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._replica = _replicate(model, world)
        self._guard = StepGuard(model, self.scaler, loss_limit=loss_limit, restore=skip)

    def step(self, batches: list[Batch], lr: float) -> Step:
        """Train on the batches as if they were one.

        Args:
            batches: this process's share of the step's images, on the CPU; their gradients are averaged.
            lr: learning rate.
        """
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        self._guard.begin()
        means: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            with self._synchronised(last=number == len(batches) - 1):
                terms = self._backward(batch, share=1 / len(batches))
            for name, value in terms.items():
                means[name] = means[name] + value if name in means else value
        failed = self._update()
        return Step(means, torch.cat([batch.image_index for batch in batches]), failed)

    def evaluated_model(self) -> nn.Module:
        """The model to evaluate: the average where there is one."""
        return self.ema.model if self.ema else self.model

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, scaler and average."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.ema and state["ema"]:
            self.ema.load_state_dict(state["ema"])

    def _backward(self, batch: Batch, share: float) -> dict[str, Tensor]:
        batch = batch.to(self._world.device, non_blocking=True)
        with torch.autocast(batch.images.device.type, _AMP_DTYPES[self._amp], enabled=self._amp != "none"):
            terms: dict[str, Tensor] = self._replica(batch.images, batch.targets)
        shares = {name: value.float() * share for name, value in terms.items()}
        loss = self._guard.mark(torch.stack(list(shares.values())).sum(), share)
        self.scaler.scale(loss).backward()
        return {name: value.detach() for name, value in shares.items()}

    def _update(self) -> Tensor:
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if self._clip_grad > 0:
            nn.utils.clip_grads_with_norm_(self._parameters, self._clip_grad, norm)
        failed, applied = self._guard.update(self.optimizer, norm)
        if self.ema and applied:
            self.ema.update(self.model)
        return failed

    def _synchronised(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Processes exchange gradients once a step, in the last backward pass."""
        if last or not isinstance(self._replica, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._replica.no_sync()


def _replicate(model: nn.Module, world: World) -> nn.Module:
    if world.size == 1:
        return model
    devices: Iterable[torch.device] | None = [world.device] if world.device.type == "cuda" else None
    # Buffers are a loss's state, summed over processes by the loss itself: broadcasting would overwrite it.
    return DistributedDataParallel(
        model,
        device_ids=None if devices is None else list(devices),
        gradient_as_bucket_view=True,
        **_NO_BUFFER_SYNC,
    )
