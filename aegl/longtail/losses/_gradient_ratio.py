"""How much gradient each class's positive and negative terms have had so far: the state of EQL v2 and EFL."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aegl.longtail.losses._blocks import row_blocks
from aegl.longtail.losses._column_sums import sums_by_origin
from aegl.longtail.losses._distributed import sum_over_ranks

EPS = 1e-10


class GradientRatio(nn.Module):
    """Sums of the magnitudes of the gradients at the logits, over all ranks and steps.

    Args:
        num_classes: C.
        start: ratio of a class that no gradient has reached yet.
    """

    positive: Tensor
    negative: Tensor

    def __init__(self, num_classes: int, *, start: float) -> None:
        super().__init__()
        self.start = start
        self.register_buffer("positive", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("negative", torch.zeros(num_classes, dtype=torch.float64))

    def ratio(self) -> Tensor:
        """``[C]`` float64: positive over negative, at least 0."""
        untouched = (self.positive == 0) & (self.negative == 0)
        return torch.where(untouched, self.start, self.positive / (self.negative + EPS))

    @torch.no_grad()
    def add(self, gradients: Tensor, labels: Tensor) -> None:
        """Add a step's gradients; every rank must call it equally often, also without rows.

        Args:
            gradients: ``[N, C]``, by the logits.
            labels: ``[N]`` int64, background ``C``; each foreground row's own term is the positive one.
        """
        sums = self.positive.new_zeros(3, len(self.positive))
        for rows in row_blocks(gradients):
            sums += sums_by_origin(gradients[rows].abs(), labels[rows])
        positive, of_foreground, of_background = sum_over_ranks(sums)
        self.positive += positive
        self.negative += of_foreground + of_background
