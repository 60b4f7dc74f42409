"""Sigmoid cross-entropy: every class its own yes-or-no question, all of equal weight."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from aegl.longtail.losses._elementwise import ElementwiseLoss
from aegl.longtail.statistics import ClassStatistics


class SigmoidBCE(ElementwiseLoss):
    """``L = (1/N) sum_ri BCE(z_ri, t_ri)``: summed over classes, not averaged; background has no positive term."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        prior_prob: Annotated[
            float | None, Field(gt=0, lt=1, description="Score every class starts from; null for classifier bias 0.")
        ] = 0.01,
        objectness: Annotated[
            bool, Field(description="Add a background column; scores become p_i (1 - p_background).")
        ] = False,
        loss_weight: Annotated[float, Field(ge=0, description="Factor of the whole classification loss.")] = 1.0,
    ) -> None:
        super().__init__(stats, prior_prob=prior_prob, objectness=objectness, loss_weight=loss_weight)
