"""Which negative terms EQL, DropLoss, GOL and FBS-AEGL keep: the rules that several of them share."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from aegl.longtail.base import Draws
from aegl.longtail.losses._distributed import sum_over_ranks
from aegl.longtail.losses._masks import drawn_below, set_own

SigmaScope = Annotated[
    Literal["local", "global"], Field(description="Count sigma in this process, or over all processes.")
]


def spare_low_frequency(labels: Tensor, low_frequency: Tensor, like: Tensor) -> Tensor:
    """``[N, C]``, 1 for all but the negative terms of low-frequency classes on foreground rows, which are 0 (EQL).

    Args:
        labels: ``[N]`` int64, background ``C``.
        low_frequency: ``[C]`` bool.
        like: says dtype and device.
    """
    background = (labels == len(low_frequency)).to(like.dtype)[:, None]
    return set_own(torch.maximum(background, (~low_frequency).to(like.dtype)), labels, 1.0)


def keep_of_droploss(
    labels: Tensor, low_frequency: Tensor, draws: Draws, scope: SigmaScope, like: Tensor
) -> tuple[Tensor, Tensor]:
    """As EQL on foreground rows; on background rows a low-frequency class is kept where ``u < sigma``.

    The authors write ``u <= sigma``; the two differ only where a draw equals sigma. Without foreground all is kept.

    Args:
        labels: ``[N]`` int64.
        low_frequency: ``[C]`` bool.
        draws: ``uniform``, ``[N, C]`` in [0, 1), if they are not to be drawn here.
        scope: of sigma, see :func:`share_of_low_frequency`.
        like: says dtype and device.

    Returns:
        ``[N, C]``, 1 or 0, and sigma.
    """
    sigma, is_empty = share_of_low_frequency(labels, low_frequency, scope)
    kept = drawn_below(sigma, draws, like.new_empty(len(labels), len(low_frequency)))
    kept.mul_((labels == len(low_frequency))[:, None].to(like.dtype))
    always = (~low_frequency | is_empty).to(like.dtype)
    return set_own(torch.maximum(kept, always, out=kept), labels, 1.0), sigma


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
