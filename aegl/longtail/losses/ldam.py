"""LDAM: label-distribution-aware margins, with deferred re-weighting (Cao et al., NeurIPS 2019)."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aegl.longtail.base import ClassificationLoss, Draws, LossWeight
from aegl.longtail.losses._class_factors import weight_factors
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.statistics import ClassStatistics


class Ldam(ClassificationLoss):
    """Softmax cross-entropy in which a class must win by a margin, the larger the rarer it is.

    ``L = CE(scale * (z - d_y e_y))`` over C + 1 cosines, ``d_i = max_margin * (min_j n_j / n_i)^(1/4)``; background has
    margin 0. Meant for a cosine classifier of temperature 1. From ``deferred_from`` of training on, rows weigh
    ``(1 - beta) / (1 - beta^n_y)``, scaled to a mean of 1 over the classes (background 1), and the loss is divided by
    the sum of the weights. Scores are ``softmax(scale * z)``.
    """

    margins: Tensor
    """``[C + 1]`` float64."""
    deferred_weight: Tensor
    """``[C + 1]`` float64."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        max_margin: Annotated[float, Field(ge=0, description="Margin of the rarest class, as a cosine.")] = 0.5,
        scale: Annotated[float, Field(gt=0, description="Factor of the cosines inside the softmax.")] = 30.0,
        deferred_from: Annotated[
            float, Field(ge=0, le=1, description="Share of training from which class weights act; 1: never.")
        ] = 0.8,
        beta: Annotated[float, Field(ge=0, lt=1, description="Base of the deferred weights; 0: all alike.")] = 0.9999,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats)
        self.num_logits = self.num_classes + 1
        self.scale = scale
        self.deferred_from = deferred_from
        self.loss_weight = loss_weight
        fourth_roots = torch.as_tensor(stats.instance_counts, dtype=torch.float64).clamp(min=1) ** -0.25
        margins = max_margin * fourth_roots / fourth_roots.max()
        # Training-only constants that follow from the statistics.
        self.register_buffer("margins", F.pad(margins, (0, 1)), persistent=False)
        weights = F.pad(weight_factors(stats, beta, mean_one=True), (0, 1), value=1.0)
        self.register_buffer("deferred_weight", weights, persistent=False)

    def init_classifier(self, layer: nn.Module) -> None:
        """Weights N(0, 0.01). The paper's layer has no bias: it stays 0, as the scale would make its steps too long."""
        super().init_classifier(layer)
        bias = getattr(layer, "bias", None)
        if isinstance(bias, Tensor):
            bias.requires_grad_(False)

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ClassificationLoss.forward`. Draws nothing."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            margins = self.margins.to(logits.dtype)[labels]
            margins = torch.zeros_like(logits).scatter(1, labels[:, None], margins[:, None])
            losses = F.cross_entropy(self.scale * (logits - margins), labels, reduction="none")
            if self.progress < self.deferred_from:
                return {"cls": self.loss_weight * losses.sum() / max(len(labels), 1)}
            weights = self.deferred_weight.to(logits.dtype)[labels]
            total = weights.sum()
            return {"cls": self.loss_weight * (weights * losses).sum() / torch.where(total > 0, total, 1.0)}

    def scores(self, logits: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.scores`; float32 at least. Background competes inside the softmax."""
        return torch.softmax(self.scale * at_least_float32(logits), dim=-1)[..., : self.num_classes]
