"""EQL: Equalization Loss for Long-Tailed Object Recognition (Tan et al., CVPR 2020), sigmoid form."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from aegl.longtail.base import Draws, LossWeight
from aegl.longtail.losses._activations import ActivationName
from aegl.longtail.losses._class_factors import (
    LowFrequency,
    LowFrequencyMax,
    LowFrequencyShare,
    low_frequency_classes,
)
from aegl.longtail.losses._elementwise import ElementwiseLoss, PriorProb
from aegl.longtail.losses._keep_rules import spare_low_frequency
from aegl.longtail.statistics import ClassStatistics


class Eql(ElementwiseLoss):
    """Cross-entropy without the negative terms of low-frequency classes on foreground rows.

    ``w_ri = 1 - E_r T_i (1 - t_ri)``: ``E_r`` is 1 on foreground rows, ``T_i`` is 1 for low-frequency classes.
    Background rows weigh 1. Draws nothing.
    """

    low_frequency: Tensor

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        low_frequency: LowFrequency = "groups",
        low_frequency_max: LowFrequencyMax = 100,
        low_frequency_share: LowFrequencyShare = 1.1e-3,
        activation: Annotated[
            ActivationName, Field(description="Logit to score; gumbel is the variant that GOL compares with.")
        ] = "sigmoid",
        prior_prob: PriorProb = 0.001,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, activation=activation, prior_prob=prior_prob, loss_weight=loss_weight)
        low = low_frequency_classes(stats, low_frequency, low_frequency_max, low_frequency_share)
        self.register_buffer("low_frequency", low, persistent=False)

    def element_weights(self, probabilities: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """0 or 1; see :meth:`ElementwiseLoss.element_weights`."""
        return spare_low_frequency(labels, self.low_frequency, probabilities)
