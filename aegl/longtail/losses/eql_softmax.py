"""SEQL: the softmax form of the Equalization Loss (Tan et al., CVPR 2020)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from aegl.longtail.base import ClassificationLoss, Draws, LossWeight
from aegl.longtail.losses._class_factors import (
    LowFrequency,
    LowFrequencyMax,
    LowFrequencyShare,
    low_frequency_classes,
)
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.losses._masks import drawn_below, set_own
from aegl.longtail.statistics import ClassStatistics


class EqlSoftmax(ClassificationLoss):
    """Softmax cross-entropy whose denominators leave out low-frequency classes at random.

    On a foreground row of class y, class ``j != y`` leaves the denominator if it is low-frequency and ``u < gamma``.
    The paper classifies images; for detection the rule of its sigmoid form is taken over: background rows, and the
    background column (the last of C+1), are ordinary. Draws: ``uniform``, ``[N, C]``, one per row and class.
    """

    is_softmax = True
    low_frequency: Tensor

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        gamma: Annotated[
            float, Field(ge=0, le=1, description="Probability that a low-frequency class leaves a denominator.")
        ] = 0.9,
        low_frequency: LowFrequency = "groups",
        low_frequency_max: LowFrequencyMax = 100,
        low_frequency_share: LowFrequencyShare = 1.1e-3,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats)
        self.num_logits = self.num_classes + 1
        self.gamma = gamma
        self.loss_weight = loss_weight
        low = low_frequency_classes(stats, low_frequency, low_frequency_max, low_frequency_share)
        self.register_buffer("low_frequency", low, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ClassificationLoss.forward` for shapes."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            left_out = F.pad(self._left_out(logits, labels, draws or {}), (0, 1))
            # A row's own column is never left out, so no row is -inf where the cross-entropy reads it.
            total = F.cross_entropy(logits.masked_fill(left_out, -math.inf), labels, reduction="sum")
            return {"cls": self.loss_weight * total / max(len(labels), 1)}

    def scores(self, logits: Tensor) -> Tensor:
        """Plain softmax, first C columns; see :meth:`ClassificationLoss.scores`."""
        return torch.softmax(at_least_float32(logits), dim=-1)[..., : self.num_classes]

    def _left_out(self, logits: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """``[N, C]`` bool."""
        drawn = drawn_below(self.gamma, draws, logits.new_empty(len(labels), self.num_classes))
        foreground = (labels < self.num_classes)[:, None]
        return set_own(drawn, labels, 0.0).bool().logical_and_(self.low_frequency).logical_and_(foreground)
