"""Softmax cross-entropy over the classes and background: the everyday baseline."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aegl.longtail.base import ClassificationLoss, Draws, LossWeight
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.statistics import ClassStatistics


class SoftmaxCE(ClassificationLoss):
    """``L = -(1/N) sum_r log softmax(z_r)[y_r]`` over C+1 logits, background last.

    Scores are the first C columns of the softmax: background competes inside it.
    """

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats)
        self.num_logits = self.num_classes + 1
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ClassificationLoss.forward` for shapes. Draws nothing."""
        with torch.autocast(logits.device.type, enabled=False):
            total = F.cross_entropy(at_least_float32(logits), labels, reduction="sum")
            return {"cls": self.loss_weight * total / max(len(labels), 1)}

    def scores(self, logits: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.scores`; float32 at least."""
        return torch.softmax(at_least_float32(logits), dim=-1)[..., : self.num_classes]
