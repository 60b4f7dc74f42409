"""Box geometry: area, overlap, clipping."""

from __future__ import annotations

import torch
from torch import Tensor


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Overlap of every pair.

    Args:
        a: ``[..., N, 4]`` boxes ``x1 y1 x2 y2``.
        b: ``[..., M, 4]``.

    Returns:
        ``[..., N, M]`` in [0, 1]; 0 for empty boxes.
    """
    top_left = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    bottom_right = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    inside = (bottom_right - top_left).clamp(min=0).prod(-1)
    union = area(a)[..., :, None] + area(b)[..., None, :] - inside
    return torch.where(inside > 0, inside / union, torch.zeros_like(inside))


def area(boxes: Tensor) -> Tensor:
    """``[..., 4]`` boxes to ``[...]`` areas, square pixels."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def clip(boxes: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """``[..., 4]`` boxes clipped to a canvas of that size."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    x1, x2 = (x.clamp(min=0).clamp(max=width) for x in (x1, x2))
    y1, y2 = (y.clamp(min=0).clamp(max=height) for y in (y1, y2))
    return torch.stack([x1, y1, x2, y2], dim=-1)
