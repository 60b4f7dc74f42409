"""Balanced Softmax: Balanced Meta-Softmax for Long-Tailed Visual Recognition (Ren et al., NeurIPS 2020)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aegl.longtail.base import ClassificationLoss, Draws, LossWeight
from aegl.longtail.losses._elementwise import PriorProb, at_least_float32
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.softmax_ce import SoftmaxCE
from aegl.longtail.statistics import ClassStatistics


class BalancedSoftmax(ClassificationLoss):
    """Cross-entropy of logits shifted by how common each class is; the scores are those of the unshifted logits.

    ``softmax``: ``CE(z + log(n_i / mean n))`` over C+1 logits, background last and unshifted: among the foreground
    this is the paper's ``z + log n_i``, and background counts like an average class. ``sigmoid``: the authors' LVIS
    code, C logits, ``z - log((1 - f_i) / f_i)`` with ``f_i = m_i / num_images``, on foreground rows only. Counts of 0
    are taken for 1, image shares are kept off 0 and 1. The meta-learnt re-weighting of BALMS is not part of it. Draws
    nothing.
    """

    shift: Tensor

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        form: Annotated[
            Literal["softmax", "sigmoid"], Field(description="softmax: the paper's; sigmoid: the authors' LVIS code.")
        ] = "softmax",
        prior_prob: PriorProb = 0.001,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats)
        self.is_softmax = form == "softmax"
        self.base: SoftmaxCE | SigmoidBCE = (
            SoftmaxCE(stats, loss_weight=loss_weight)
            if self.is_softmax
            else SigmoidBCE(stats, prior_prob=prior_prob, loss_weight=loss_weight)
        )
        self.num_logits = self.base.num_logits
        shift = F.pad(_log_counts(stats), (0, 1)) if self.is_softmax else _log_odds(stats)
        self.register_buffer("shift", shift, persistent=False)

    def init_classifier(self, layer: nn.Module) -> None:
        """As softmax or sigmoid cross-entropy; ``prior_prob`` is the start of the sigmoid form."""
        self.base.init_classifier(layer)

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ClassificationLoss.forward` for shapes."""
        logits = at_least_float32(logits)
        terms: dict[str, Tensor] = self.base(self._shifted(logits, labels), labels)
        return terms

    def _shifted(self, logits: Tensor, labels: Tensor) -> Tensor:
        shift = self.shift.to(logits.dtype)
        if self.is_softmax:
            return logits + shift
        foreground = (labels < self.num_classes)[:, None].to(logits.dtype)
        return torch.addcmul(logits, foreground, shift)

    def scores(self, logits: Tensor) -> Tensor:
        """Plain softmax or sigmoid; see :meth:`ClassificationLoss.scores`."""
        return self.base.scores(logits)


def _log_counts(stats: ClassStatistics) -> Tensor:
    """``[C]`` float64 ``log(n_i / mean n)``."""
    instances = torch.as_tensor(stats.instance_counts, dtype=torch.float64).clamp(min=1)
    return (instances / instances.mean()).log()


def _log_odds(stats: ClassStatistics) -> Tensor:
    """``[C]`` float64 ``log(f_i / (1 - f_i))``, finite also for a class in no image or in every image."""
    total = max(stats.num_images, 1)
    share = torch.as_tensor(stats.image_counts, dtype=torch.float64) / total
    return torch.logit(share, eps=1 / (total + 1))
