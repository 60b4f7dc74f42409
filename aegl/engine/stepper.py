"""One optimiser step: forward, backward, accumulation, mixed precision, clipping, averaging."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from aegl.engine.distributed import World
from aegl.engine.ema import ModelEma
from aegl.engine.optim import set_lr
from aegl.types import Batch

Amp = Literal["none", "bf16", "fp16"]

_AMP_DTYPES = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_HAS_FORWARD_SYNC = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
_NO_BUFFER_SYNC: dict[str, Any] = {"forward_sync_buffers" if _HAS_FORWARD_SYNC else "broadcast_buffers": False}
"""Newer versions of torch deprecate the one name, older ones do not know the other."""


class Stepper:
    """Owns what changes in a step: weights, optimiser, gradient scaler and average.

    Args:
        model: ``model(images, targets)`` gives named scalar losses in training; on ``world.device``.
        optimizer: over the model's parameters.
        world: the processes; with several, gradients are averaged by DDP.
        amp: autocast precision; fp16 scales the loss.
        clip_grad: largest norm of the gradient, 0 for no clipping.
        ema: follows the model if given.
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

    def step(self, batches: list[Batch], lr: float) -> tuple[dict[str, Tensor], Tensor]:
        """Train on the batches as if they were one.

        Args:
            batches: this process's share of the step's images, on the CPU; their gradients are averaged.
            lr: learning rate.

        Returns:
            The mean loss terms (detached scalars on the device) and the images' rows in the training set (CPU).
        """
        set_lr(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        means: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            with self._synchronised(last=number == len(batches) - 1):
                terms = self._backward(batch, share=1 / len(batches))
            for name, value in terms.items():
                means[name] = means[name] + value if name in means else value
        self._update()
        return means, torch.cat([batch.image_index for batch in batches])

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
        self.scaler.scale(torch.stack(list(shares.values())).sum()).backward()
        return {name: value.detach() for name, value in shares.items()}

    def _update(self) -> None:
        if self._clip_grad > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.update(self.model)

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
