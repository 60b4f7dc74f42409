"""Sigmoid cross-entropy: every class its own yes-or-no question, all of equal weight."""

from __future__ import annotations

from aegl.longtail.base import LossWeight
from aegl.longtail.losses._elementwise import ElementwiseLoss, Objectness, PriorProb
from aegl.longtail.statistics import ClassStatistics


class SigmoidBCE(ElementwiseLoss):
    """``L = (1/N) sum_ri BCE(z_ri, t_ri)``: summed over classes, not averaged; background has no positive term."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        prior_prob: PriorProb = 0.01,
        objectness: Objectness = False,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, prior_prob=prior_prob, objectness=objectness, loss_weight=loss_weight)
