"""The focal modulation of a sigmoid cross-entropy, written so that neither value nor gradient is lost."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aegl.longtail.losses._activations import softplus
from aegl.longtail.losses._weighted_sum import Columns


def focal_losses(logits: Tensor, targets: Tensor, gamma: Tensor | float, alpha: float | None) -> Tensor:
    """``alpha_t (1 - p_t)^gamma (-log p_t)`` of each element.

    Args:
        logits: ``[N, C]``.
        targets: ``[N, C]`` bool.
        gamma: focusing parameter, one number or ``[C]``, at least 0.
        alpha: factor of the positive terms, negative ones have ``1 - alpha``; None for 1 and 1.
    """
    signed = torch.where(targets, logits, -logits)  # p_t = sigmoid(signed)
    # exp(gamma log(1 - p_t)): a power of an underflown 1 - p_t would have an infinite gradient for gamma < 1.
    losses = torch.exp(gamma * F.logsigmoid(-signed)) * -F.logsigmoid(signed)
    return losses if alpha is None else losses * torch.full_like(logits, 1 - alpha).masked_fill(targets, alpha)


class FocalForm:
    """The closed form of :func:`focal_losses`, times a factor.

    Args:
        gamma: focusing parameter, one number or ``[C]``, at least 0.
        alpha: factor of the positive terms, negative ones have ``1 - alpha``; None for 1 and 1.
        factor: of the whole, one number or ``[C]``.
    """

    def __init__(self, gamma: Tensor | float, alpha: float | None, factor: Tensor | float = 1.0) -> None:
        self.gamma = gamma
        self.alpha = alpha
        self.factor = factor

    def terms(self, logits: Tensor, probabilities: Tensor, positive: bool, columns: Columns) -> tuple[Tensor, Tensor]:
        """See :meth:`ClosedForm.terms`; with ``q = 1 - p_t``: ``q^gamma (-log p_t)``."""
        gamma, factor = (
            part.to(logits.dtype)[columns] if isinstance(part, Tensor) else part for part in (self.gamma, self.factor)
        )
        if self.alpha is not None:
            factor = factor * (self.alpha if positive else 1 - self.alpha)
        # To a logit of -z a negative term is what a positive one is to z.
        wrong, signed = (torch.sigmoid(-logits), -logits) if positive else (probabilities, logits)
        losses, power = _losses_and_power(signed, wrong, gamma)
        slopes = (1 - wrong).mul_(gamma).mul_(losses).add_(wrong).mul_(power).mul_(factor)
        return losses.mul_(power).mul_(factor), slopes.neg_() if positive else slopes


def _losses_and_power(logits: Tensor, wrong: Tensor, gamma: Tensor | float) -> tuple[Tensor, Tensor]:
    """``-log(1 - q)`` and ``q^gamma`` for ``q = wrong``, the sigmoid of the logits."""
    if not isinstance(gamma, Tensor):
        return softplus(logits), wrong.pow(gamma)
    # Both logarithms from one: faster than a power with an exponent for each class, and as exact.
    small = softplus(logits.abs().neg_())
    return logits.relu().add_(small), logits.clamp(max=0).sub_(small).mul_(gamma).exp_()
