"""Seesaw loss (Wang et al., CVPR 2021)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from aegl.longtail.base import ClassificationLoss, Draws, LossWeight
from aegl.longtail.losses._distributed import sum_over_ranks
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.statistics import ClassStatistics


class Seesaw(ClassificationLoss):
    """Softmax cross-entropy whose negatives push a rarer class less, and more where it wins by mistake.

    C + 2 columns: the classes, then *object* and *no object*. For a foreground row of class i, with ``N_j`` the number
    of rows of class j seen so far and ``s`` the detached softmax over the classes::

        z'_j = z_j + log(M_ij C_ij) for j != i,  M_ij = min(1, N_j / N_i)^p,  C_ij = max(1, s_j / max(s_i, eps))^q

    The term ``cls`` is the cross-entropy of ``z'`` on foreground rows, ``objectness`` that of the last two columns on
    all rows; both are divided by the number of rows. Scores are ``softmax(z)_i * P(object)``.

    State: ``cum_samples``, counted before the loss of the same step and summed over processes.
    """

    cum_samples: Tensor
    """``[C + 1]`` float64: rows seen per label in training, background last."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        p: Annotated[float, Field(ge=0, description="Exponent of the mitigation factor; 0 switches it off.")] = 0.8,
        q: Annotated[float, Field(ge=0, description="Exponent of the compensation factor; 0 switches it off.")] = 2.0,
        eps: Annotated[
            float, Field(gt=0, le=1, description="Smallest score of the true class in the compensation factor.")
        ] = 0.01,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats)
        self.num_logits = self.num_classes + 2
        self.p = p
        self.q = q
        self.log_eps = math.log(eps)
        self.loss_weight = loss_weight
        self.register_buffer("cum_samples", torch.zeros(self.num_classes + 1, dtype=torch.float64))

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The terms ``cls`` and ``objectness``; see :meth:`ClassificationLoss.forward`. Draws nothing."""
        with torch.autocast(logits.device.type, enabled=False):
            if self.training:
                self._count(labels)
            logits = at_least_float32(logits)
            rows = (labels < self.num_classes).nonzero().squeeze(1)
            classes, own = logits[rows, : self.num_classes], labels[rows]
            seesaw = F.cross_entropy(classes + self.log_factors(classes, own), own, reduction="sum")
            is_background = (labels == self.num_classes).long()
            objectness = F.cross_entropy(logits[:, self.num_classes :], is_background, reduction="sum")
            scale = self.loss_weight / max(len(labels), 1)
            return {"cls": scale * seesaw, "objectness": scale * objectness}

    @torch.no_grad()
    def log_factors(self, logits: Tensor, labels: Tensor) -> Tensor:
        """``[P, C]`` ``log(M_ij C_ij)``, 0 at each row's own class.

        Args:
            logits: ``[P, C]`` class logits of foreground rows.
            labels: ``[P]`` their classes.
        """
        counts = self.cum_samples[: self.num_classes].clamp(min=1).log().to(logits.dtype)
        mitigation = self.p * (counts - counts[labels, None]).clamp(max=0)
        scores = logits.log_softmax(dim=1)
        own_score = scores.gather(1, labels[:, None]).clamp(min=self.log_eps)
        compensation = self.q * (scores - own_score).clamp(min=0)
        return mitigation + compensation

    def scores(self, logits: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.scores`; float32 at least."""
        logits = at_least_float32(logits)
        classes = logits[..., : self.num_classes].softmax(dim=-1)
        return classes * logits[..., self.num_classes :].softmax(dim=-1)[..., :1]

    @torch.no_grad()
    def _count(self, labels: Tensor) -> None:
        increment = torch.bincount(labels, minlength=self.num_classes + 1).to(self.cum_samples)
        self.cum_samples += sum_over_ranks(increment)
