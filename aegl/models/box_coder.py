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
        shift_std: what ``dx`` and ``dy`` are divided by when encoding.
        scale_std: what ``dw`` and ``dh`` are divided by.
    """

    def __init__(self, shift_std: float, scale_std: float) -> None:
        # Numbers, not a tensor: to bring one to a GPU would make the host wait, in every step.
        self.shift_std = shift_std
        self.scale_std = scale_std

    def encode(self, reference: Tensor, boxes: Tensor) -> Tensor:
        """``[..., 4]`` offsets that lead from ``reference`` to ``boxes``, both ``[..., 4]`` and not empty."""
        reference_centre, reference_size = _centre_size(reference)
        centre, size = _centre_size(boxes)
        shift = (centre - reference_centre) / reference_size
        scale = torch.log(size / reference_size)
        return torch.cat([shift / self.shift_std, scale / self.scale_std], dim=-1)

    def decode(self, reference: Tensor, deltas: Tensor) -> Tensor:
        """Inverse of :meth:`encode`; float32 whatever the dtype of ``deltas``."""
        centre, size = _centre_size(reference.float())
        shift, scale = deltas[..., :2].float() * self.shift_std, deltas[..., 2:].float() * self.scale_std
        centre = centre + shift * size
        half = 0.5 * size * torch.exp(scale.clamp(min=-MAX_LOG_SCALE, max=MAX_LOG_SCALE))
        return torch.cat([centre - half, centre + half], dim=-1)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    # A side of zero has no logarithm; a hundredth of a pixel stands for it.
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-2)
    return boxes[..., :2] + 0.5 * (boxes[..., 2:] - boxes[..., :2]), size
