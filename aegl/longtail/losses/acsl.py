"""ACSL: Adaptive Class Suppression Loss for Long-Tail Object Detection (Wang et al., CVPR 2021)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from aegl.longtail.base import Draws, LossWeight
from aegl.longtail.losses._elementwise import ElementwiseLoss, PriorProb
from aegl.longtail.losses._masks import at_least, set_own
from aegl.longtail.statistics import ClassStatistics


class Acsl(ElementwiseLoss):
    """Sigmoid cross-entropy that suppresses only classes mistaken for the true one.

    Foreground row: the true class and every column with ``p >= threshold``, the background column among them.
    Background row: the background column always, with no look at ``p``; class columns by frequency band, in whole
    rows: of the ``n`` background rows ``int(rare_keep n)`` random ones keep all rare columns, ``int(common_keep n)``
    all common ones, every row the frequent ones. Rare are the classes of the rarest band, common those of the other
    low bands. Background, the last of C+1 columns, has no part in the scores. Draws: ``uniform``, ``[N, 2]``; the
    rows with the smallest draws are kept, first column for rare classes, second for common ones.
    """

    rare: Tensor
    common: Tensor

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        threshold: Annotated[
            float, Field(ge=0, description="A negative term of a foreground row acts from this probability on.")
        ] = 0.7,
        rare_keep: Annotated[
            float, Field(ge=0, le=1, description="Share of the background rows that suppress rare classes.")
        ] = 0.01,
        common_keep: Annotated[
            float, Field(ge=0, le=1, description="Share of the background rows that suppress common classes.")
        ] = 0.1,
        prior_prob: PriorProb = None,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, prior_prob=prior_prob, background_column=True, loss_weight=loss_weight)
        self.threshold = threshold
        self.rare_keep = rare_keep
        self.common_keep = common_keep
        low, rarest = torch.as_tensor(stats.low_frequency), torch.as_tensor(stats.class_band) == 0
        self.register_buffer("rare", low & rarest, persistent=False)
        self.register_buffer("common", low & ~rarest, persistent=False)

    def element_weights(self, probabilities: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """0 or 1; see :meth:`ElementwiseLoss.element_weights`."""
        dtype = probabilities.dtype
        background = labels == self.num_classes
        threshold = torch.where(background, torch.inf, self.threshold).to(dtype)[:, None]
        weights = set_own(at_least(probabilities, threshold), labels, 1.0)
        uniform = draws["uniform"] if "uniform" in draws else torch.rand(len(labels), 2, device=labels.device)
        rows_for_rare = _smallest(uniform[:, 0], background, self.rare_keep)
        rows_for_common = _smallest(uniform[:, 1], background, self.common_keep)
        # Each class is of one of three kinds, so the product of these masks is a mask again.
        rows = torch.stack([background, rows_for_rare, rows_for_common], dim=1).to(dtype)
        kinds = torch.stack([~(self.rare | self.common), self.rare, self.common]).to(dtype)
        return weights.addmm_(rows, kinds)

    def background_weights(self, logits: Tensor, labels: Tensor) -> Tensor:
        """0 or 1; see :meth:`ElementwiseLoss.background_weights`."""
        mistaken = self.activation.probability(logits[:, -1]) >= self.threshold
        return ((labels == self.num_classes) | mistaken).to(logits.dtype)


def _smallest(values: Tensor, candidates: Tensor, share: float) -> Tensor:
    """``[N]`` bool: ``int(share n)`` of the ``n`` candidate rows, those of the smallest values."""
    rank = torch.where(candidates, values, torch.inf).argsort().argsort()
    return candidates & (rank < torch.floor(share * candidates.sum().double()))
