"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

_AVERAGED_BUFFERS = ("running_mean", "running_var")


class ModelEma:
    """A copy of the model that follows it slowly and is the one to be evaluated.

    Parameters and the running statistics of batch norm are averaged; every other buffer (constants and counters of
    losses, anchors) is copied. Early on the decay is ``(1 + n) / (10 + n)`` after ``n`` updates, so that the average
    does not remember the random start.

    Args:
        model: the model, on its final device; not wrapped for several processes.
        decay: weight of the past per step, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in ``model`` after an optimiser step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own, new = dict(self.model.named_parameters()), dict(model.named_parameters())
        own_buffers, new_buffers = dict(self.model.named_buffers()), dict(model.named_buffers())
        averaged = [name for name in own_buffers if name.endswith(_AVERAGED_BUFFERS)]
        targets = [*own.values(), *(own_buffers[name] for name in averaged)]
        sources = [*(new[name] for name in own), *(new_buffers[name] for name in averaged)]
        torch._foreach_lerp_(targets, sources, 1 - decay)
        for name, buffer in own_buffers.items():
            if not name.endswith(_AVERAGED_BUFFERS):
                buffer.copy_(new_buffers[name])

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and the number of updates."""
        return {"weights": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.model.load_state_dict(state["weights"])
        self.updates = int(state["updates"])
