"""EFL: Equalized Focal Loss for Dense Long-Tailed Object Detection (Li et al., CVPR 2022)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from aegl.longtail.base import Draws, LossWeight
from aegl.longtail.losses._elementwise import ElementwiseLoss, PriorProb, at_least_float32, one_hot
from aegl.longtail.losses._focal import focal_gradients, focal_losses
from aegl.longtail.losses._gradient_ratio import GradientRatio
from aegl.longtail.statistics import ClassStatistics


class Efl(ElementwiseLoss):
    """Focal loss whose focusing parameter grows for classes short of positive gradient.

    ``g_i = gamma + scale (1 - min(R_i, 1))`` with ``R_i`` the ratio of positive to negative gradient so far, over all
    ranks (1 at the start, which makes it the focal loss). Each element's focal loss with ``g_i`` is multiplied by
    ``g_i / gamma``; the sum is divided by the number of positives. Rows labelled -1, the ignored anchors of a dense
    detector, do not count. The gradients are computed in closed form, where the authors take them from a hook. Draws
    nothing.
    """

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        gamma: Annotated[float, Field(gt=0, description="Focusing parameter of a balanced class.")] = 2.0,
        scale: Annotated[
            float, Field(ge=0, description="What a class without positive gradient gets on top of gamma.")
        ] = 8.0,
        alpha: Annotated[
            float, Field(ge=0, le=1, description="Factor of positive terms; negative ones have 1 - alpha.")
        ] = 0.25,
        prior_prob: PriorProb = 0.001,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, prior_prob=prior_prob, normalization="num_foreground", loss_weight=loss_weight)
        self.gamma = gamma
        self.scale = scale
        self.alpha = alpha
        self.gradient = GradientRatio(self.num_classes, start=1.0)

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ElementwiseLoss.forward`. In training the step's gradients join the state."""
        counted = labels >= 0
        logits, labels = logits[counted], labels[counted]
        terms = super().forward(logits, labels, draws=draws)
        if self.training:
            self._remember_gradients(logits.detach(), labels)
        return terms

    def element_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :meth:`ElementwiseLoss.element_losses`."""
        focusing = self.focusing().to(logits.dtype)
        return focusing / self.gamma * focal_losses(logits, targets, focusing, self.alpha)

    def focusing(self) -> Tensor:
        """``[C]`` float64, the focusing parameter of each class."""
        return self.gamma + self.scale * (1 - self.gradient.ratio().clamp(max=1))

    @torch.no_grad()
    def _remember_gradients(self, logits: Tensor, labels: Tensor) -> None:
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            targets = one_hot(labels, self.num_classes, self.num_classes)
            focusing = self.focusing().to(logits.dtype)
            gradients = focusing / self.gamma * focal_gradients(logits, targets, focusing, self.alpha)
            self.gradient.add(gradients / targets.sum().clamp(min=1), targets)
