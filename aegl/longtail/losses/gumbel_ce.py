"""Gumbel cross-entropy with a background class: the plain loss of GOL (Alexandridis et al., ECCV 2022)."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from aegl.longtail.base import Draws, LossWeight
from aegl.longtail.losses._elementwise import ElementwiseLoss
from aegl.longtail.losses._gumbel_start import ClassifierBias, ClassifierWeights, start_classifier
from aegl.longtail.statistics import ClassStatistics


class GumbelCE(ElementwiseLoss):
    """Cross-entropy of ``p = exp(-exp(-z))`` over C+1 outputs: background is a class like the others, without a score.

    The loss is clamped to ``largest_loss``: a batch beyond it has no gradient. At bias 0 it would be beyond it with
    hundreds of classes, so the start belongs to the method. The logits are clamped to [-4, 10] in the loss. Draws
    nothing.
    """

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        largest_loss: Annotated[
            float | None, Field(gt=0, description="The batch's loss is clamped to this; null: not clamped.")
        ] = 20.0,
        classifier_bias: ClassifierBias = -2.0,
        classifier_weights: ClassifierWeights = "normal",
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, activation="gumbel", background_column=True, loss_weight=loss_weight)
        self.largest_loss = math.inf if largest_loss is None else loss_weight * largest_loss
        self.classifier_bias = classifier_bias
        self.classifier_weights = classifier_weights

    def init_classifier(self, layer: nn.Module) -> None:
        """See :func:`start_classifier`."""
        start_classifier(layer, self.classifier_bias, self.classifier_weights)

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ElementwiseLoss.forward`."""
        loss = super().forward(logits, labels, draws=draws)["cls"]
        return {"cls": loss.clamp(max=self.largest_loss)}
