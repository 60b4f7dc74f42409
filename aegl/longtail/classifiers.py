"""The layer that makes class logits from region features; any of them goes with any loss."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aegl.errors import ConfigError


class CosineLinear(nn.Module):
    """``z = temperature * x/(|x|^power + eps) . w/(|w|^power + eps) + b``: linear on normalised features and weights.

    The definition is mmdetection's ``NormedLinear``. The bias is learnt and is not scaled by the temperature, so the
    prior that a sigmoid loss writes into it holds here as for a linear layer: a fresh layer starts about
    ``temperature / sqrt(in_features)`` around the prior's logit, whatever the scale of its weights.

    Args:
        in_features: length of a feature vector.
        out_features: number of logits.
        temperature: scale of the cosine, > 0.
        power: exponent of the norms.
        eps: added to the norms, so that a zero feature gives the bias and not NaN.
    """

    def __init__(
        self, in_features: int, out_features: int, *, temperature: float = 20.0, power: float = 1.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.temperature = temperature
        self.power = power
        self.eps = eps
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """``[N, in_features]`` to ``[N, out_features]`` logits."""
        return F.linear(self.temperature * self._normalise(features), self._normalise(self.weight), self.bias)

    def extra_repr(self) -> str:
        """Sizes and temperature, for printing the model."""
        out_features, in_features = self.weight.shape
        return f"in_features={in_features}, out_features={out_features}, temperature={self.temperature}"

    def _normalise(self, rows: Tensor) -> Tensor:
        return rows / (torch.linalg.vector_norm(rows, dim=-1, keepdim=True).pow(self.power) + self.eps)


def classifier_inputs(layer: nn.Module) -> tuple[str, ...]:
    """Which of the box head's features a classifier reads, in the order of its arguments.

    ``pooled`` (flattened), ``first`` (after the first shared layer) or ``hidden`` (after the second): what its
    attribute ``inputs`` says; most have none and read ``hidden``.
    """
    return getattr(layer, "inputs", ("hidden",))


def build_classifier(
    kind: Literal["linear", "cosine"], in_features: int, num_logits: int, temperature: float = 20.0
) -> nn.Module:
    """A classifier layer ``[N, in_features] -> [N, num_logits]``, to be initialised by the loss's ``init_classifier``.

    Args:
        kind: ``linear`` or ``cosine`` (`box.classifier`).
        in_features: length of a region's feature vector.
        num_logits: the loss's ``num_logits``.
        temperature: scale of the cosine classifier; a linear layer has none.

    Raises:
        ConfigError: for another kind.
    """
    if kind == "linear":
        return nn.Linear(in_features, num_logits)
    if kind == "cosine":
        return CosineLinear(in_features, num_logits, temperature=temperature)
    raise ConfigError(f"box.classifier={kind}: must be one of linear, cosine")
