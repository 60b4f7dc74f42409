"""Who pushes each class's score up and down: gradients of the class logits, added up over training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aegl.longtail.losses._blocks import row_blocks
from aegl.longtail.losses._column_sums import sums_by_origin
from aegl.longtail.losses._distributed import sum_over_ranks
from aegl.longtail.losses._masks import above
from aegl.longtail.statistics import ClassStatistics


class GradientAccount(nn.Module):
    """Sums of ``|dL/dz_i|`` per class ``i`` over the regions of all processes, from the start of training.

    ``L`` is what the box head's classifier is trained with, weights and normalisation included; the gradients are those
    before any scaling for half precision. What Figure 1 of the FBS-AEGL paper draws is :meth:`foreground_share`.
    """

    sums: Tensor
    """``[3, C]`` float64: from the class's own regions, from foreground of other classes, from background."""
    active: Tensor
    """``[2, C]`` int64: negative terms whose gradient is not zero, in foreground of other classes and in background."""
    regions: Tensor
    """``[C + 1]`` int64: regions per label, background last."""

    def __init__(self, stats: ClassStatistics) -> None:
        super().__init__()
        number = stats.num_classes
        self.register_buffer("sums", torch.zeros(3, number, dtype=torch.float64))
        self.register_buffer("active", torch.zeros(2, number, dtype=torch.int64))
        self.register_buffer("regions", torch.zeros(number + 1, dtype=torch.int64))

    @torch.no_grad()
    def add(self, gradient: Tensor, labels: Tensor) -> None:
        """Add the regions of a step.

        Args:
            gradient: ``[N, C]`` of the loss with respect to the class logits.
            labels: ``[N]`` int64, background ``C``.
        """
        number = len(self.regions) - 1
        sums, active = torch.zeros_like(self.sums), torch.zeros_like(self.sums)
        for rows in row_blocks(gradient):
            size = gradient[rows].abs()
            sums += sums_by_origin(size, labels[rows])
            active += sums_by_origin(above(size, 0.0), labels[rows])
        regions = torch.bincount(labels, minlength=number + 1)
        # One exchange for all; counts far below 2^53 are exact as float64.
        parts = [sums, active[1:], regions]
        flat = sum_over_ranks(torch.cat([part.double().flatten() for part in parts]))
        new = flat.split([part.numel() for part in parts])
        self.sums += new[0].view_as(self.sums)
        self.active += new[1].view_as(self.active).long()
        self.regions += new[2].long()

    def foreground_share(self) -> Tensor:
        """``[C]`` float64 in [0, 1]: share of the negative gradient that foreground causes; NaN where there is none."""
        foreground, background = self.sums[1], self.sums[2]
        return foreground / (foreground + background)

    def active_share(self) -> Tensor:
        """``[2, C]`` float64 in [0, 1]: share of the negative terms that act, by foreground and background; or NaN."""
        own, background = self.regions[:-1], self.regions[-1]
        terms = torch.stack([own.sum() - own, background.expand_as(own)])
        return self.active.double() / terms
