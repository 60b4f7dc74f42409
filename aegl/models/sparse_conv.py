"""A convolution where its result is needed, instead of everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def convolve_at(features: Sequence[Tensor], cells: Tensor, conv: nn.Conv2d) -> Tensor:
    """What a 3x3 convolution with padding 1 gives in some cells of the pyramid.

    Args:
        features: one ``[B, c, Hi, Wi]`` map per level.
        cells: ``[B, K]`` int64, cells counted level by level and row by row.
        conv: the convolution, ``c`` to ``d`` channels.

    Returns:
        ``[B, K, d]``. Backward, too, costs what ``K`` cells cost.
    """
    batch, channels = features[0].shape[:2]
    outside = features[0].new_zeros(batch, 1, channels)
    flat = torch.cat([*(feature.permute(0, 2, 3, 1).flatten(1, 2) for feature in features), outside], dim=1)
    sizes = [(feature.shape[2], feature.shape[3]) for feature in features]
    first = torch.arange(batch, device=cells.device) * flat.shape[1]
    rows = _neighbours(sizes, cells.device)[cells] + first[:, None, None]
    patches = flat.flatten(0, 1).index_select(0, rows.flatten()).view(*cells.shape, -1)
    return F.linear(patches, conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias)


def _neighbours(sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """``[S, 9]`` int64: the cells that the kernel covers around each of all ``S`` cells; ``S`` where it is outside."""
    total = sum(height * width for height, width in sizes)
    tables, first = [], 0
    for height, width in sizes:
        numbers = torch.arange(first, first + height * width, device=device).view(height, width)
        padded = F.pad(numbers, (1, 1, 1, 1), value=total)
        tables.append(padded.unfold(0, 3, 1).unfold(1, 3, 1).reshape(-1, 9))
        first += height * width
    return torch.cat(tables)
