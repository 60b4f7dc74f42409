"""Federated loss: Probabilistic two-stage detection (Zhou et al., 2021), as in detectron2 and CenterNet2."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from aegl.longtail.base import Draws, LossWeight
from aegl.longtail.losses._elementwise import ElementwiseLoss, PriorProb
from aegl.longtail.statistics import ClassStatistics


class Federated(ElementwiseLoss):
    """Sigmoid cross-entropy over the classes of the batch and some drawn ones, the same for all rows.

    Kept are the classes that occur among the labels, and others drawn without replacement with probability
    proportional to ``m_i ** power`` (images of the training set) until there are ``num_classes_kept``; a label
    background takes one of these places, as in detectron2. If the labels fill all places, none is drawn. detectron2
    has a further column that nothing reads; here there are C. The kept classes are those of this process. Draws:
    ``class_uniform``, ``[C]``.
    """

    draw_weight: Tensor

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        num_classes_kept: Annotated[int, Field(ge=1, description="Classes that a batch trains, with background.")] = 50,
        power: Annotated[
            float, Field(ge=0, description="Classes are drawn in proportion to their number of images to this power.")
        ] = 0.5,
        prior_prob: PriorProb = 0.01,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, prior_prob=prior_prob, loss_weight=loss_weight)
        self.num_classes_kept = num_classes_kept
        images = torch.as_tensor(stats.image_counts, dtype=torch.float64)
        # A class without an image is never drawn, also with power 0, where 0 ** 0 would be 1.
        self.register_buffer("draw_weight", torch.where(images > 0, images**power, 0.0), persistent=False)

    def element_weights(self, probabilities: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """0 or 1; see :meth:`ElementwiseLoss.element_weights`."""
        uniform = draws.get("class_uniform", torch.rand_like(self.draw_weight))
        return self._kept(labels, uniform).to(probabilities.dtype).expand_as(probabilities)

    def _kept(self, labels: Tensor, uniform: Tensor) -> Tensor:
        """``[C]`` bool."""
        present = torch.zeros(self.num_classes + 1, dtype=torch.bool, device=labels.device)
        present = present.index_fill(0, labels, True)
        places = self.num_classes_kept - present.sum()
        present = present[:-1]
        # The first arrivals among exponential clocks of these rates are a weighted draw without replacement.
        arrival = torch.where(present, torch.inf, -torch.log1p(-uniform) / self.draw_weight)
        drawn = (arrival.argsort().argsort() < places) & torch.isfinite(arrival)
        return present | drawn
