"""Which negative terms EQL, DropLoss, GOL and FBS-AEGL keep: the rules that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from aegl.longtail.base import Draws
from aegl.longtail.losses._distributed import sum_over_ranks

SigmaScope = Annotated[
    Literal["local", "global"], Field(description="Count sigma in this process, or over all processes.")
]


def spare_low_frequency(positive: Tensor, labels: Tensor, low_frequency: Tensor) -> Tensor:
    """``[N, C]`` bool: all but the negative terms of low-frequency classes on foreground rows (EQL's rule).

    Args:
        positive: ``[N, C]`` bool, true at each foreground row's own class.
        labels: ``[N]`` int64, background ``C``.
        low_frequency: ``[C]`` bool.
    """
    background = (labels == len(low_frequency))[:, None]
    return positive | background | ~low_frequency


def keep_of_droploss(
    positive: Tensor, labels: Tensor, low_frequency: Tensor, uniform: Tensor, scope: SigmaScope
) -> tuple[Tensor, Tensor]:
    """As EQL on foreground rows; on background rows a low-frequency class is kept where ``u < sigma``.

    The authors write ``u <= sigma``; the two differ only where a draw equals sigma. Without foreground all is kept.

    Args:
        positive: ``[N, C]`` bool.
        labels: ``[N]`` int64.
        low_frequency: ``[C]`` bool.
        uniform: ``[N, C]`` draws from [0, 1).
        scope: of sigma, see :func:`share_of_low_frequency`.

    Returns:
        ``[N, C]`` bool, and sigma.
    """
    sigma, is_empty = share_of_low_frequency(labels, low_frequency, scope)
    background = (labels == len(low_frequency))[:, None]
    drawn = (uniform < sigma) | is_empty | ~low_frequency
    return spare_low_frequency(positive, labels, low_frequency) & (drawn | ~background), sigma


def share_of_low_frequency(labels: Tensor, low_frequency: Tensor, scope: SigmaScope) -> tuple[Tensor, Tensor]:
    """Share of low-frequency labels among the foreground rows, sigma, and whether there are no such rows.

    Args:
        labels: ``[N]`` int64, ``0..C-1`` foreground, ``C`` background.
        low_frequency: ``[C]`` bool.
        scope: count the rows of this process, or of all; every rank must then call it.

    Returns:
        A float64 scalar in [0, 1] (0 without foreground) and a bool scalar.
    """
    num_classes = len(low_frequency)
    foreground = labels < num_classes
    low = low_frequency[labels.clamp(max=num_classes - 1)] & foreground
    counts = torch.stack([low.sum(), foreground.sum()])
    num_low, num_foreground = sum_over_ranks(counts) if scope == "global" else counts
    return num_low.double() / num_foreground.clamp(min=1), num_foreground == 0


def uniform_draws(draws: Draws, shape: Sequence[int], like: Tensor) -> Tensor:
    """``draws["uniform"]``, else fresh draws from [0, 1) of this shape, with the dtype and device of ``like``."""
    if "uniform" in draws:
        return draws["uniform"]
    return torch.rand(tuple(shape), dtype=like.dtype, device=like.device)
