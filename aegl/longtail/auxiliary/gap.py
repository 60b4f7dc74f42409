"""GAP: the ranking term of ROG (Zhang et al., ICCV 2023), beside any loss with a logit per class."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable

from aegl.longtail.base import AuxiliaryLoss, ClassificationLoss, Rows
from aegl.longtail.losses._distributed import sum_over_ranks
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.statistics import ClassStatistics

_SOME_ERROR = 1e-10


class Gap(AuxiliaryLoss):
    """Every positive logit should rank above all negative ones, of whatever class: a smoothed average-precision error.

    With ``H(x) = clip(x / (2 delta) + 1/2, 0, 1)``, for a positive ``z_i`` of class m, over the batch::

        R_i = sum of H(z_j - z_i) over the positives of class m, itself included
        F_i = sum of H(z - z_i) over all (row, class) elements that are no positives
        error_i = F_i / (R_i + F_i)

    The term ``gap`` is the mean over the classes present of their mean error. Its gradient is the authors' own and not
    its derivative: ``-error_i`` at a positive, and ``H(z - z_i) / (R_i + F_i)``, summed over i, at a negative, both
    times ``gradient_scale * w_m / (positives of m * classes present)`` with ``w_m = C S_m^-gamma / sum_k S_k^-gamma``.

    State: ``class_samples``, rows seen per label, counted before the loss of the same step and summed over processes.
    """

    class_samples: Tensor
    """``[C + 1]`` float64, background last."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        gradient_scale: Annotated[
            float, Field(ge=0, description="Factor of the gradient (the paper's lambda); the value is not scaled.")
        ] = 0.1,
        gamma: Annotated[
            float, Field(ge=0, description="Exponent of the class weights 1 / samples; 0: all classes alike.")
        ] = 1.0,
        delta: Annotated[
            float, Field(gt=0, description="Half width of the ramp that stands for a step between two logits.")
        ] = 0.5,
    ) -> None:
        super().__init__(stats)
        self.gradient_scale = gradient_scale
        self.gamma = gamma
        self.delta = delta
        self.register_buffer("class_samples", torch.zeros(self.num_classes + 1, dtype=torch.float64))

    def forward(self, rows: Rows, loss: ClassificationLoss) -> dict[str, Tensor]:
        """The term ``gap``; see :meth:`AuxiliaryLoss.forward`. Zero without foreground."""
        with torch.autocast(rows.logits.device.type, enabled=False):
            if self.training:
                self._count(rows.labels)
            logits = at_least_float32(loss.class_logits(rows.logits))
            weights = self.gradient_scale * self._class_weights()
            return {"gap": _RankingError.apply(logits, rows.labels, weights, self.delta)}

    def _class_weights(self) -> Tensor:
        """``[C]`` float64, mean 1."""
        weights = self.class_samples[: self.num_classes].clamp(min=1) ** -self.gamma
        return weights / weights.mean()

    @torch.no_grad()
    def _count(self, labels: Tensor) -> None:
        increment = torch.bincount(labels, minlength=self.num_classes + 1).to(self.class_samples)
        self.class_samples += sum_over_ranks(increment)


class _RankingError(torch.autograd.Function):
    """The value and the hand-written gradient of :class:`Gap`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, class_weight: Tensor, delta: float) -> Tensor:
        value, gradient = _ranking_error(logits.detach().double(), labels, class_weight, delta)
        ctx.save_for_backward(gradient.to(logits.dtype))
        return value.to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return grad_output * gradient, None, None, None


def _ranking_error(logits: Tensor, labels: Tensor, class_weight: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """Value (scalar) and gradient (``[N, C]``) from float64 logits.

    ``H(z - z_i) = (relu(z - (z_i - delta)) - relu(z - (z_i + delta))) / (2 delta)``: with the bends of all these ramps
    sorted, it is enough to know between which two bends each negative lies. That costs N C log P instead of N C P.
    """
    foreground = (labels < logits.shape[1]).nonzero().squeeze(1)
    if not len(foreground):
        return logits.new_zeros(()), torch.zeros_like(logits)
    classes = labels[foreground]
    positive = logits[foreground, classes]

    same = classes[:, None] == classes
    ramp = ((positive - positive[:, None]) / (2 * delta) + 0.5).clamp(0, 1)
    rank = (ramp * same).sum(1)
    share = 1 / (same.sum(1).double() * classes.unique().numel())

    bends, order = torch.cat([positive - delta, positive + delta]).sort()
    # Beyond the outermost bends nothing changes, and huge logits would cost the sums their digits.
    values = logits.clamp(bends[0], bends[-1])
    between = torch.searchsorted(bends, values, right=True)
    between[foreground, classes] = 0  # positives are no negatives

    above = _sums_above(values, between, bends)
    low, high = torch.empty_like(above).scatter(0, order, above).chunk(2)
    negative = ((low - high) / (2 * delta)).clamp(min=0)
    error = negative / (rank + negative)

    pull = class_weight[classes] * share
    push = torch.where(negative > _SOME_ERROR, pull / (rank + negative), 0.0) / (2 * delta)
    slopes = torch.cat([push, -push])[order]
    slope, offset = (F.pad(part.cumsum(0), (1, 0)) for part in (slopes, slopes * bends))
    gradient = slope[between] * values - offset[between]
    gradient[foreground, classes] = -pull * error
    return (share * error).sum(), gradient


def _sums_above(values: Tensor, between: Tensor, bends: Tensor) -> Tensor:
    """``[B]``: the sum of ``relu(z - bend)`` over all values, for each bend.

    Args:
        values: any shape.
        between: same shape, the number of bends up to each value.
        bends: ``[B]``, rising.
    """
    zeros = values.new_zeros(len(bends) + 1)
    index = between.flatten()
    count = zeros.index_add(0, index, torch.ones_like(index, dtype=values.dtype))
    total = zeros.index_add(0, index, values.flatten())
    count_above, total_above = (part.flip(0).cumsum(0).flip(0)[1:] for part in (count, total))
    return total_above - bends * count_above
