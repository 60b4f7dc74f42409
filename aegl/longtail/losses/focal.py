"""Focal loss: Focal Loss for Dense Object Detection (Lin et al., ICCV 2017)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from aegl.longtail.base import LossWeight
from aegl.longtail.losses._elementwise import ElementwiseLoss, Normalization, PriorProb
from aegl.longtail.losses._focal import FocalForm, focal_losses
from aegl.longtail.statistics import ClassStatistics


class Focal(ElementwiseLoss):
    """``L = sum alpha_t (1 - p_t)^gamma (-log p_t) / max(num_foreground, 1)`` over C sigmoid logits. Draws nothing."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        gamma: Annotated[float, Field(ge=0, description="Focusing parameter; 0 gives plain cross-entropy.")] = 2.0,
        alpha: Annotated[
            float | None,
            Field(ge=0, le=1, description="Factor of positive terms, negative ones have 1 - alpha; null for 1 and 1."),
        ] = 0.25,
        normalization: Annotated[
            Normalization, Field(description="What the summed loss is divided by.")
        ] = "num_foreground",
        prior_prob: PriorProb = 0.01,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, prior_prob=prior_prob, normalization=normalization, loss_weight=loss_weight)
        self.gamma = gamma
        self.alpha = alpha

    def element_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :meth:`ElementwiseLoss.element_losses`."""
        return focal_losses(logits, targets, self.gamma, self.alpha)

    def element_form(self) -> FocalForm:
        """See :meth:`ElementwiseLoss.element_form`."""
        return FocalForm(self.gamma, self.alpha)
