"""Feature pyramid network (Lin et al., CVPR 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """Lateral connections and a top-down path.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        channels: channels of every level.
        extra_level: add one coarser level by taking every second pixel of the last.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, *, extra_level: bool = True) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.extra_level = extra_level
        for layer in [*self.lateral, *self.smooth]:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """``[B, Ci, Hi, Wi]`` maps to as many ``[B, channels, Hi, Wi]`` maps, and the extra level if there is one."""
        maps = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for level in range(len(maps) - 1, 0, -1):
            # To the finer map's own size: sides need not be powers of two.
            above = F.interpolate(maps[level], size=maps[level - 1].shape[-2:], mode="nearest")
            maps[level - 1] = maps[level - 1] + above
        levels = [smooth(feature) for smooth, feature in zip(self.smooth, maps, strict=True)]
        if self.extra_level:
            levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        return levels
