"""Box geometry: overlap, clipping, and the coding of boxes as offsets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest predicted log ratio of sides; keeps exp() from overflowing."""


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


class BoxCoder:
    """Boxes as offsets from reference boxes (Faster R-CNN's parametrisation).

    Args:
        stds: what each of ``dx dy dw dh`` is divided by when encoding.
    """

    def __init__(self, stds: tuple[float, float, float, float]) -> None:
        self.stds = stds

    def encode(self, reference: Tensor, boxes: Tensor) -> Tensor:
        """``[..., 4]`` offsets that lead from ``reference`` to ``boxes``, both ``[..., 4]`` and not empty."""
        reference_centre, reference_size = _centre_size(reference)
        centre, size = _centre_size(boxes)
        shift = (centre - reference_centre) / reference_size
        scale = torch.log(size / reference_size)
        return torch.cat([shift, scale], dim=-1) / reference.new_tensor(self.stds)

    def decode(self, reference: Tensor, deltas: Tensor) -> Tensor:
        """Inverse of :meth:`encode`; float32 whatever the dtype of ``deltas``."""
        centre, size = _centre_size(reference.float())
        deltas = deltas.float() * deltas.new_tensor(self.stds, dtype=torch.float32)
        centre = centre + deltas[..., :2] * size
        half = 0.5 * size * torch.exp(deltas[..., 2:].clamp(min=-MAX_LOG_SCALE, max=MAX_LOG_SCALE))
        return torch.cat([centre - half, centre + half], dim=-1)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    # A side of zero has no logarithm; a hundredth of a pixel stands for it.
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-2)
    return boxes[..., :2] + 0.5 * (boxes[..., 2:] - boxes[..., :2]), size
