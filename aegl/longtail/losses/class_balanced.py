"""Class-Balanced Loss Based on Effective Number of Samples (Cui et al., CVPR 2019)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aegl.longtail.base import ClassificationLoss, Draws, LossWeight
from aegl.longtail.losses._class_factors import weight_factors
from aegl.longtail.losses._elementwise import PriorProb, at_least_float32
from aegl.longtail.losses.focal import Focal
from aegl.longtail.losses.softmax_ce import SoftmaxCE
from aegl.longtail.statistics import ClassStatistics


class ClassBalanced(ClassificationLoss):
    """Softmax, sigmoid or focal loss, each row of which weighs ``(1 - beta) / (1 - beta^n)`` of its own class.

    The weights are rescaled to a mean of 1 over the classes; a class without instance counts as one instance.
    Background rows, which the paper does not know, weigh 1. Logits, scores and start are those of the base. Draws
    nothing.
    """

    row_weight: Tensor

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        base: Annotated[
            Literal["softmax", "sigmoid", "focal"], Field(description="The loss that is weighted.")
        ] = "softmax",
        beta: Annotated[
            float, Field(ge=0, lt=1, description="Base of the weights; 0 gives 1 for every class.")
        ] = 0.999,
        gamma: Annotated[float, Field(ge=0, description="Focusing parameter of the focal base.")] = 0.5,
        normalization: Annotated[
            Literal["num_proposals", "sum_of_weights"],
            Field(description="What the summed loss is divided by; sum_of_weights is what torch's weighted mean does."),
        ] = "num_proposals",
        prior_prob: PriorProb = 0.01,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats)
        self.is_softmax = base == "softmax"
        self.base: SoftmaxCE | Focal = (
            SoftmaxCE(stats)
            if self.is_softmax
            else Focal(stats, gamma=gamma if base == "focal" else 0.0, alpha=None, prior_prob=prior_prob)
        )
        self.num_logits = self.base.num_logits
        self.normalization = normalization
        self.loss_weight = loss_weight
        weight = F.pad(weight_factors(stats, beta, mean_one=True), (0, 1), value=1.0)
        self.register_buffer("row_weight", weight, persistent=False)

    def init_classifier(self, layer: nn.Module) -> None:
        """As the base; ``prior_prob`` is the start of the sigmoid and focal bases."""
        self.base.init_classifier(layer)

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ClassificationLoss.forward` for shapes."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            weights = self.row_weight.to(logits.dtype)[labels]
            total = self._total(logits, labels, weights)
            counted = weights.sum() if self.normalization == "sum_of_weights" else weights.new_tensor(len(labels))
            return {"cls": self.loss_weight * total / torch.where(counted > 0, counted, 1.0)}

    def scores(self, logits: Tensor) -> Tensor:
        """As the base; see :meth:`ClassificationLoss.scores`."""
        return self.base.scores(logits)

    def _total(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """The losses of the base, summed with a weight for each row."""
        if isinstance(self.base, SoftmaxCE):
            return (weights * F.cross_entropy(logits, labels, reduction="none")).sum()
        return self.base.row_weighted(logits, labels, weights)
