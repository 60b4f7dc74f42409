"""Keeps a step that went wrong out of the weights, the optimiser, the average and the state of the method."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn, optim

_OVERFLOWS = 32
"""Steps in a row after which an overflow in fp16 is no search for a scale any more: each halves it."""


class StepGuard:
    """Finds out whether a step's gradient is finite, and applies the step only if it is.

    All processes come to the same verdict without asking each other, because it follows from the gradient that DDP
    averages: a loss that is wrong on one of them turns its gradient into NaN, and thereby the average.

    On CUDA the verdict stays on the device, where the optimiser's fused kernels read it as they do for a gradient
    scaler: no step waits for the GPU. It is read on the CPU, for the first step (the kernels would leave the momentum
    unset), and where steps are skipped with an optimiser that is not fused.

    Args:
        model: its buffers hold the state of the method.
        scaler: of the gradients. One that is enabled (fp16) leaves out steps that overflow by itself, which is how it
            finds its scale and no failure.
        loss_limit: a larger loss counts as not finite.
        restore: whether training goes on after such a step, so that the buffers must be what they were before it.
    """

    def __init__(
        self, model: nn.Module, scaler: torch.amp.GradScaler, *, loss_limit: float = math.inf, restore: bool = False
    ) -> None:
        self._scaler = scaler
        self._loss_limit = loss_limit
        self._buffers = list(model.buffers()) if restore else []
        self._restore = restore
        self._before: list[Tensor] = []
        self._lost: Tensor | None = None
        self._overflows: Tensor | None = None

    def begin(self) -> None:
        """Before the first forward pass of a step."""
        self._lost = None
        self._before = [buffer.clone() for buffer in self._buffers]

    def mark(self, loss: Tensor, share: float) -> Tensor:
        """The loss to start a backward pass from: itself, but with a gradient of NaN where it is wrong.

        Args:
            loss: scalar, times ``share``.
            share: weight of this pass in the step.
        """
        value = loss.detach() / share
        wrong = ~(value.isfinite() & (value <= self._loss_limit))
        self._lost = wrong if self._lost is None else self._lost | wrong
        # A factor of exactly 1 leaves every bit of the gradient as it is.
        return loss * torch.where(wrong, math.nan, 1.0)

    @torch.no_grad()
    def update(self, optimizer: optim.Optimizer, norm: Tensor) -> tuple[Tensor, bool]:
        """Step the optimiser if the gradient is finite; if it is not, put the buffers back where training goes on.

        Args:
            optimizer: with the gradients of the step, no longer scaled.
            norm: of these gradients.

        Returns:
            Whether the step failed (scalar bool on the device), and False if it is known not to have been applied.
        """
        broken = ~norm.isfinite()
        is_fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        is_read = _is_free(norm) or not optimizer.state or (self._restore and not is_fused)
        applied = not (is_read and bool(broken))
        if applied:
            by_kernel = is_fused and not is_read and not self._scaler.is_enabled()
            optimizer.found_inf = broken.float() if by_kernel else None  # type: ignore[attr-defined]
            self._scaler.step(optimizer)
        self._scaler.update()
        if not (is_read and applied):
            for buffer, before in zip(self._buffers, self._before, strict=True):
                buffer.copy_(torch.where(broken, before, buffer))
        return self._failed(broken), applied

    def _failed(self, broken: Tensor) -> Tensor:
        if not self._scaler.is_enabled() or self._lost is None:
            return broken
        before = torch.zeros_like(broken, dtype=torch.int32) if self._overflows is None else self._overflows
        self._overflows = torch.where(broken, before + 1, 0)
        return self._lost | (self._overflows > _OVERFLOWS)


def _is_free(value: Tensor) -> bool:
    """Whether reading a number makes nobody wait."""
    return value.device.type == "cpu"
