"""The focal modulation of a sigmoid cross-entropy, written so that neither value nor gradient is lost."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
    return losses if alpha is None else losses * _alpha_t(logits, targets, alpha)


def focal_gradients(logits: Tensor, targets: Tensor, gamma: Tensor | float, alpha: float | None) -> Tensor:
    """``[N, C]`` magnitude of the derivative of :func:`focal_losses` by the logits, in closed form."""
    signed = torch.where(targets, logits, -logits)
    probability = torch.sigmoid(signed)
    slope = torch.sigmoid(-signed) - gamma * probability * F.logsigmoid(signed)
    gradients = torch.exp(gamma * F.logsigmoid(-signed)) * slope
    return gradients if alpha is None else gradients * _alpha_t(logits, targets, alpha)


def _alpha_t(logits: Tensor, targets: Tensor, alpha: float) -> Tensor:
    return torch.full_like(logits, 1 - alpha).masked_fill(targets, alpha)
