"""DropLoss: DropLoss for Long-Tail Instance Segmentation (Hsieh et al., AAAI 2021)."""

from __future__ import annotations

from torch import Tensor

from aegl.longtail.base import Draws, LossWeight
from aegl.longtail.losses._class_factors import (
    LowFrequency,
    LowFrequencyMax,
    LowFrequencyShare,
    low_frequency_classes,
)
from aegl.longtail.losses._elementwise import ElementwiseLoss, PriorProb
from aegl.longtail.losses._keep_rules import SigmaScope, keep_of_droploss
from aegl.longtail.statistics import ClassStatistics


class DropLoss(ElementwiseLoss):
    """Sigmoid cross-entropy that spares low-frequency classes on foreground rows and, at random, on background rows.

    Foreground rows are weighted as in EQL. On background rows the term of a low-frequency class is kept with
    probability ``sigma``, the share of low-frequency labels among the foreground rows; frequent classes always are
    (the paper has a ratio for them too, the authors' code has none). Without foreground everything is kept. Draws:
    ``uniform``, ``[N, C]``.
    """

    low_frequency: Tensor

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        low_frequency: LowFrequency = "groups",
        low_frequency_max: LowFrequencyMax = 100,
        low_frequency_share: LowFrequencyShare = 1.1e-3,
        sigma_scope: SigmaScope = "local",
        prior_prob: PriorProb = 0.001,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, prior_prob=prior_prob, loss_weight=loss_weight)
        self.sigma_scope = sigma_scope
        low = low_frequency_classes(stats, low_frequency, low_frequency_max, low_frequency_share)
        self.register_buffer("low_frequency", low, persistent=False)

    def element_weights(self, probabilities: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """0 or 1; see :meth:`ElementwiseLoss.element_weights`."""
        kept, self.diagnostics["sigma"] = keep_of_droploss(
            labels, self.low_frequency, draws, self.sigma_scope, probabilities
        )
        return kept
