"""Sums over the rows of an ``[N, C]`` matrix, apart by what the rows are to each class."""

from __future__ import annotations

import torch
from torch import Tensor

from aegl.longtail.losses._masks import set_own


def sums_by_origin(magnitudes: Tensor, labels: Tensor) -> Tensor:
    """``[3, C]``: sums over a class's own rows, over foreground rows of other classes, and over background rows.

    Args:
        magnitudes: ``[N, C]``.
        labels: ``[N]`` int64, background ``C``.
    """
    number = magnitudes.shape[1]
    background = (labels == number).to(magnitudes.dtype)
    foreground = 1 - background
    column = labels.clamp(max=number - 1)[:, None]
    own = magnitudes.gather(1, column).squeeze(1) * foreground
    own_sums = magnitudes.new_zeros(number).index_add(0, column.squeeze(1), own)
    others = set_own(magnitudes.clone(), labels, 0.0)
    return torch.cat([own_sums[None], torch.stack([foreground, background]) @ others])
