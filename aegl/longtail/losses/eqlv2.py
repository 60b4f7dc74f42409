"""EQL v2: Equalization Loss v2, a New Gradient Balance Approach (Tan et al., CVPR 2021)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from aegl.longtail.base import Draws, LossWeight
from aegl.longtail.losses._elementwise import ElementwiseLoss, Objectness, PriorProb
from aegl.longtail.losses._gradient_ratio import GradientRatio
from aegl.longtail.losses._masks import set_own
from aegl.longtail.statistics import ClassStatistics


class EqlV2(ElementwiseLoss):
    """Sigmoid cross-entropy weighted by each class's ratio ``g`` of positive to negative gradient so far.

    ``q_i = 1 / (1 + exp(-gamma (g_i - mu)))``; a negative term weighs ``q_i``, a positive one ``1 + alpha (1 - q_i)``.
    The gradients that a step weighs in are those of the steps before it, over all ranks; ``g`` is 100 until a class's
    first gradient, so the first step is unweighted. Draws nothing.
    """

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        gamma: Annotated[float, Field(gt=0, description="Slope of the map from gradient ratio to weight.")] = 12.0,
        mu: Annotated[float, Field(ge=0, description="Gradient ratio at which a negative term weighs one half.")] = 0.8,
        alpha: Annotated[
            float, Field(ge=0, description="Gain of the positive terms of a class without positive gradient.")
        ] = 4.0,
        objectness: Objectness = True,
        prior_prob: PriorProb = None,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, prior_prob=prior_prob, objectness=objectness, loss_weight=loss_weight)
        self.gamma = gamma
        self.mu = mu
        self.alpha = alpha
        self.gradient = GradientRatio(self.num_classes, start=100.0)

    def element_weights(self, probabilities: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """See :meth:`ElementwiseLoss.element_weights`."""
        negative_weight = torch.sigmoid(self.gamma * (self.gradient.ratio() - self.mu))
        positive_weight = 1 + self.alpha * (1 - negative_weight)
        weights = negative_weight.to(probabilities.dtype).repeat(len(labels), 1)
        own = positive_weight.to(weights.dtype)[labels.clamp(max=self.num_classes - 1)]
        return set_own(weights, labels, own[:, None])

    def observe_gradients(self, gradients: Tensor, labels: Tensor) -> None:
        """They join the state: of the summed, not the averaged loss, as the authors count it."""
        self.gradient.add(gradients, labels)
