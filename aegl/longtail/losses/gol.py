"""GOL: Long-tailed Instance Segmentation using Gumbel Optimized Loss (Alexandridis et al., ECCV 2022)."""

from __future__ import annotations

from torch import Tensor, nn

from aegl.longtail.base import Draws, LossWeight
from aegl.longtail.losses._class_factors import (
    LowFrequency,
    LowFrequencyMax,
    LowFrequencyShare,
    low_frequency_classes,
)
from aegl.longtail.losses._elementwise import ElementwiseLoss
from aegl.longtail.losses._gumbel_start import ClassifierBias, ClassifierWeights, start_classifier
from aegl.longtail.losses._keep_rules import SigmaScope, keep_of_droploss
from aegl.longtail.statistics import ClassStatistics


class Gol(ElementwiseLoss):
    """Cross-entropy of the Gumbel activation ``p = exp(-exp(-z))``, weighted as in DropLoss.

    The loss clamps the logits to [-4, 10] (no gradient outside), the scores do not. Draws: ``uniform``, ``[N, C]``.
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
        classifier_bias: ClassifierBias = -2.0,
        classifier_weights: ClassifierWeights = "normal",
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, activation="gumbel", loss_weight=loss_weight)
        self.sigma_scope = sigma_scope
        self.classifier_bias = classifier_bias
        self.classifier_weights = classifier_weights
        low = low_frequency_classes(stats, low_frequency, low_frequency_max, low_frequency_share)
        self.register_buffer("low_frequency", low, persistent=False)

    def init_classifier(self, layer: nn.Module) -> None:
        """See :func:`start_classifier`."""
        start_classifier(layer, self.classifier_bias, self.classifier_weights)

    def element_weights(self, probabilities: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """0 or 1, as :class:`aegl.longtail.losses.droploss.DropLoss`."""
        kept, self.diagnostics["sigma"] = keep_of_droploss(
            labels, self.low_frequency, draws, self.sigma_scope, probabilities
        )
        return kept
