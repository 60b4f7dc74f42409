"""Activations that make each logit an independent probability, with the cross-entropy written in terms of logits."""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

ActivationName = Literal["sigmoid", "gumbel"]


class Activation(Protocol):
    """An element-wise map from logits to probabilities."""

    def probability(self, logits: Tensor) -> Tensor:
        """Probabilities in [0, 1], same shape as ``logits``."""
        ...

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """``-log p`` where ``targets`` (bool, same shape) is true, else ``-log(1 - p)``; finite for finite logits."""
        ...

    def logit(self, probability: float) -> float:
        """The logit whose probability is ``probability``, in (0, 1)."""
        ...


class Sigmoid:
    """``p = 1 / (1 + exp(-z))``."""

    def probability(self, logits: Tensor) -> Tensor:
        """See :class:`Activation`."""
        return torch.sigmoid(logits)

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Activation`. Value and gradient keep full relative precision for both targets."""
        # 1 - sigmoid(z) = sigmoid(-z): flipping the sign avoids the cancellation of (1 - t) z - log sigmoid(z).
        return -F.logsigmoid(torch.where(targets, logits, -logits))

    def logit(self, probability: float) -> float:
        """See :class:`Activation`."""
        return math.log(probability) - math.log1p(-probability)


class Gumbel:
    """``p = exp(-exp(-z))``, the Gumbel activation of GOL (ECCV 2022).

    The loss clamps the logits to [-4, 10], as the authors do (gradient zero outside); probabilities do not.
    """

    clamp_min = -4.0
    clamp_max = 10.0

    def probability(self, logits: Tensor) -> Tensor:
        """See :class:`Activation`."""
        return torch.exp(-torch.exp(-logits))

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Activation`."""
        # Inside the clamp -log p <= 54.6 and -log(1 - p) <= 10, so the authors' floor at -100 is never reached.
        negative_log_p = torch.exp(-logits.clamp(self.clamp_min, self.clamp_max))
        return torch.where(targets, negative_log_p, -torch.log(-torch.expm1(-negative_log_p)))

    def logit(self, probability: float) -> float:
        """See :class:`Activation`."""
        return -math.log(-math.log(probability))


ACTIVATIONS: dict[ActivationName, Activation] = {"sigmoid": Sigmoid(), "gumbel": Gumbel()}
