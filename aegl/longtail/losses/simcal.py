"""SimCal: a second classifier calibrated on class-balanced regions (Wang et al., ECCV 2020)."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from aegl.longtail.base import ClassificationLoss, Draws, LossWeight
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.statistics import ClassStatistics


class SimCal(ClassificationLoss):
    """The scores of two softmax classifiers, of which the second takes over where the first saw too little.

    ``2 (C + 1)`` columns: the original classifier's, then the calibrated one's, each with background last. The loss is
    the mean cross-entropy of the calibrated half only; the original half is trained beforehand and gets no gradient.
    A class of fewer than ``threshold`` training instances is scored by the calibrated half, any other by the original
    one; the scores are not normalised again.
    """

    calibrated: Tensor
    """``[C]`` bool: classes that the calibrated half scores."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        threshold: Annotated[
            int, Field(ge=0, description="Classes of fewer instances take the calibrated classifier's score.")
        ] = 100,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats)
        self.columns_each = self.num_classes + 1
        self.num_logits = 2 * self.columns_each
        self.loss_weight = loss_weight
        # Follows from the statistics: no part of a checkpoint.
        calibrated = torch.as_tensor(stats.instance_counts) < threshold
        self.register_buffer("calibrated", calibrated, persistent=False)

    @property
    def column_groups(self) -> tuple[int, ...]:
        """See :attr:`ClassificationLoss.column_groups`: the two classifiers."""
        return (self.columns_each, self.columns_each)

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ClassificationLoss.forward`. Draws nothing."""
        with torch.autocast(logits.device.type, enabled=False):
            total = F.cross_entropy(at_least_float32(logits[:, self.columns_each :]), labels, reduction="sum")
            return {"cls": self.loss_weight * total / max(len(labels), 1)}

    def class_logits(self, logits: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.class_logits`; those of the calibrated half, the one that learns."""
        return logits[..., self.columns_each : self.columns_each + self.num_classes]

    def hide_unverified(self, logits: Tensor, labels: Tensor, verified: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.hide_unverified`; in the calibrated half."""
        original, calibrated = logits.split(self.columns_each, dim=1)
        return torch.cat([original, super().hide_unverified(calibrated, labels, verified)], dim=1)

    def scores(self, logits: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.scores`; float32 at least."""
        original, calibrated = (
            half.softmax(dim=-1)[..., : self.num_classes]
            for half in at_least_float32(logits).split(self.columns_each, dim=-1)
        )
        return torch.where(self.calibrated, calibrated, original)
