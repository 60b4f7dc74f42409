"""Multi-level RoIAlign: every region is pooled from the pyramid level that fits its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aegl.models.boxes import area
from aegl.models.ops import roi_align_levels

FINEST_SCALE = 14
"""Regions of this side in strides of the finest level are pooled from it (56 pixels at stride 4), as in FPN."""


class RegionPool(nn.Module):
    """Pools regions to squares.

    Args:
        strides: input pixels per feature pixel of the levels pooled from, finest first.
        output_size: side of the squares.
    """

    def __init__(self, strides: Sequence[int], output_size: int) -> None:
        super().__init__()
        self.strides = list(strides)
        self.output_size = output_size

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """``[R, 5]`` regions (image index, box) to ``[R, channels, S, S]``; levels beyond ``strides`` are not used."""
        used = list(features[: len(self.strides)])
        return roi_align_levels(used, rois, self.levels(rois[:, 1:]), self.strides, self.output_size)

    def levels(self, boxes: Tensor) -> Tensor:
        """``[R, 4]`` boxes to ``[R]`` int64 levels: one coarser for each doubling of the side (FPN, Eq. 1)."""
        finest = FINEST_SCALE * self.strides[0]
        level = torch.floor(torch.log2(area(boxes).sqrt() / finest + 1e-6))
        return level.clamp(min=0, max=len(self.strides) - 1).long()
