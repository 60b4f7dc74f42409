"""Equilibrium loss of LOCE: Exploring Classification Equilibrium in Long-Tailed Object Detection (ICCV 2021)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from aegl.longtail.base import Draws, LossWeight, Rows
from aegl.longtail.losses._distributed import sum_over_ranks
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.losses.softmax_ce import SoftmaxCE
from aegl.longtail.statistics import ClassStatistics


class Loce(SoftmaxCE):
    """Softmax cross-entropy of ``z + log s``, where ``s`` is the mean score that each class gets on its own objects.

    A class that the model scores low is not pushed down much by the others. Scores are those of the plain logits.
    Draws nothing.

    State: ``mean_score``, renewed before the loss of the same step. Every object of the batch that some region is
    matched to gives one score, the mean over its regions; so do, together, a class's remembered regions (on each
    process). A class with k scores of mean m: ``s <- decay^k s + (1 - decay^k) m``, over all processes.
    """

    is_softmax = True
    mean_score: Tensor
    """``[C + 1]`` float64, background last; background keeps ``start_score``."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        decay: Annotated[
            float, Field(ge=0, le=1, description="How much of a class's mean score one more object leaves.")
        ] = 0.9,
        start_score: Annotated[
            float, Field(gt=0, le=1, description="Mean score that every class starts from and background keeps.")
        ] = 0.01,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, loss_weight=loss_weight)
        self.decay = decay
        self.register_buffer("mean_score", torch.full((self.num_logits,), start_score, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, rows: Rows) -> None:
        """Renew the mean scores; see :meth:`ClassificationLoss.observe`."""
        if not self.training:
            return
        with torch.autocast(rows.logits.device.type, enabled=False):
            chosen = (rows.labels < self.num_classes).nonzero().squeeze(1)
            labels = rows.labels[chosen]
            scores = self.own_scores(rows.logits[chosen], labels)
        # Objects of the batch have numbers from 0 on; a class's remembered regions share a number below -1.
        source = torch.where(rows.remembered[chosen], -2 - labels, rows.instance[chosen])
        sources, index = source.unique(return_inverse=True)
        means = _mean_by(index, scores, len(sources))
        owners = labels.new_zeros(len(sources)).index_copy_(0, index, labels)
        sums = means.new_zeros(2, self.num_classes)
        sums[0].index_add_(0, owners, means)
        sums[1].index_add_(0, owners, torch.ones_like(means))
        total, count = sum_over_ranks(sums)
        kept = self.decay**count
        renewed = kept * self.mean_score[:-1] + (1 - kept) * total / count.clamp(min=1)
        self.mean_score[:-1] = renewed

    @staticmethod
    def own_scores(logits: Tensor, labels: Tensor) -> Tensor:
        """``[P]`` float64: the softmax at each row's label."""
        return at_least_float32(logits).softmax(dim=1).gather(1, labels[:, None]).squeeze(1).double()

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ClassificationLoss.forward` for shapes."""
        logits = at_least_float32(logits)
        shift = self.mean_score.clamp(min=torch.finfo(torch.float32).tiny).log()
        return super().forward(logits + shift.to(logits.dtype), labels)


def _mean_by(index: Tensor, values: Tensor, groups: int) -> Tensor:
    """``[groups]`` means of the values that share an index; each index occurs."""
    sums = values.new_zeros(groups).index_add_(0, index, values)
    return sums / torch.bincount(index, minlength=groups).to(values)
