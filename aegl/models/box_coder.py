"""Boxes as offsets from reference boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest predicted log ratio of sides; keeps exp() from overflowing."""


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
