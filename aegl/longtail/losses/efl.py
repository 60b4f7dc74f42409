"""EFL: Equalized Focal Loss for Dense Long-Tailed Object Detection (Li et al., CVPR 2022)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from aegl.longtail.base import Draws, LossWeight
from aegl.longtail.losses._elementwise import ElementwiseLoss, PriorProb
from aegl.longtail.losses._focal import FocalForm, focal_losses
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
        """The term ``cls``; see :meth:`ElementwiseLoss.forward`."""
        counted = labels >= 0
        return super().forward(logits[counted], labels[counted], draws=draws)

    def element_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See :meth:`ElementwiseLoss.element_losses`."""
        focusing = self.focusing().to(logits.dtype)
        return focusing / self.gamma * focal_losses(logits, targets, focusing, self.alpha)

    def element_form(self) -> FocalForm:
        """See :meth:`ElementwiseLoss.element_form`."""
        focusing = self.focusing()
        return FocalForm(focusing, self.alpha, focusing / self.gamma)

    def focusing(self) -> Tensor:
        """``[C]`` float64, the focusing parameter of each class."""
        return self.gamma + self.scale * (1 - self.gradient.ratio().clamp(max=1))

    def observe_gradients(self, gradients: Tensor, labels: Tensor) -> None:
        """They join the state, divided by the number of positives as the loss is."""
        self.gradient.add(gradients / (labels < self.num_classes).sum().clamp(min=1), labels)
