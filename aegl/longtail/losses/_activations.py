"""Activations that make each logit an independent probability, with the cross-entropy written in terms of logits."""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aegl.longtail.losses._weighted_sum import ClosedForm, Columns

ActivationName = Literal["sigmoid", "gumbel"]


# From here on log(1 + exp(z)) is z in float64 too; torch's own threshold is 20.
_SOFTPLUS_IS_LINEAR = 40.0


class Activation(ClosedForm, Protocol):
    """An element-wise map from logits to probabilities; as a closed form it is that of the cross-entropy."""

    def probability(self, logits: Tensor) -> Tensor:
        """Probabilities in [0, 1], same shape as ``logits``."""
        ...

    def probability_for_weights(self, logits: Tensor) -> Tensor:
        """As :meth:`probability`, but below 1e-35 any number below 1e-35: denormal ones take ten times as long.

        Not differentiable; a new tensor.
        """
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

    probability_for_weights = probability

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Activation`. Value and gradient keep full relative precision for both targets."""
        # 1 - sigmoid(z) = sigmoid(-z): flipping the sign avoids the cancellation of (1 - t) z - log sigmoid(z).
        return -F.logsigmoid(torch.where(targets, logits, -logits))

    def terms(self, logits: Tensor, probabilities: Tensor, positive: bool, columns: Columns) -> tuple[Tensor, Tensor]:
        """See :meth:`ClosedForm.terms`."""
        if positive:
            return softplus(-logits), -torch.sigmoid(-logits)
        # Softplus as max(z, 0) - log max(p, 1 - p): half the time, and off by no more than a probability is.
        larger = probabilities.sub(0.5).abs_().add_(0.5)
        return torch.relu(logits).sub_(larger.log_()), probabilities

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

    def probability_for_weights(self, logits: Tensor) -> Tensor:
        """See :class:`Activation`."""
        return logits.clamp(min=-4.4).neg_().exp_().neg_().exp_()  # at least 4e-36

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :class:`Activation`."""
        # Inside the clamp -log p <= 54.6 and -log(1 - p) <= 10, so the authors' floor at -100 is never reached.
        negative_log_p = torch.exp(-logits.clamp(self.clamp_min, self.clamp_max))
        return torch.where(targets, negative_log_p, -torch.log(-torch.expm1(-negative_log_p)))

    def terms(self, logits: Tensor, probabilities: Tensor, positive: bool, columns: Columns) -> tuple[Tensor, Tensor]:
        """See :meth:`ClosedForm.terms`."""
        clamped = logits.clamp(self.clamp_min, self.clamp_max)
        inside = torch.eq(clamped, logits, out=torch.empty_like(logits))
        negative_log_p = clamped.neg_().exp_()
        if positive:
            return negative_log_p, inside.mul_(negative_log_p).neg_()
        odds = torch.expm1(negative_log_p).reciprocal_()  # p / (1 - p)
        return torch.log1p(odds), inside.mul_(negative_log_p).mul_(odds)

    def logit(self, probability: float) -> float:
        """See :class:`Activation`."""
        return -math.log(-math.log(probability))


def softplus(logits: Tensor) -> Tensor:
    """``log(1 + exp(z))``, to full precision in float64 too."""
    return F.softplus(logits, threshold=_SOFTPLUS_IS_LINEAR)


ACTIVATIONS: dict[ActivationName, Activation] = {"sigmoid": Sigmoid(), "gumbel": Gumbel()}
