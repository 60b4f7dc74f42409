"""Anchors: one scale per pyramid level, several aspect ratios."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AnchorGenerator(nn.Module):
    """Anchors centred on the pixels of each feature map.

    Args:
        strides: input pixels per feature pixel, by level.
        scale: side of a square anchor in strides.
        ratios: height over width, of equal area.
    """

    def __init__(self, strides: Sequence[int], scale: float, ratios: Sequence[float]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.num_ratios = len(ratios)
        root = torch.tensor(list(ratios)).sqrt()
        half = 0.5 * scale * torch.stack([1 / root, root], dim=1)
        self.register_buffer("_unit", torch.cat([-half, half], dim=1), persistent=False)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """One ``[Hi * Wi * ratios, 4]`` float32 tensor per level, in the order of the RPN's flattened output."""
        return [self._level(feature, stride) for feature, stride in zip(features, self.strides, strict=True)]

    def _level(self, feature: Tensor, stride: int) -> Tensor:
        height, width = feature.shape[-2:]
        # Corners of the feature cells, as in the reference recipes: the anchor of cell 0 is centred on pixel 0.
        y = torch.arange(height, device=feature.device, dtype=torch.float32) * stride
        x = torch.arange(width, device=feature.device, dtype=torch.float32) * stride
        centre_y, centre_x = y[:, None].expand(height, width), x[None, :].expand(height, width)
        centres = torch.stack([centre_x, centre_y, centre_x, centre_y], dim=-1)
        unit: Tensor = self._unit  # type: ignore[assignment]
        return (centres[:, :, None, :] + unit * stride).reshape(-1, 4)
