"""What all element-wise re-weighted losses share: an independent probability per class, weighted cross-entropy."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from aegl.longtail.base import HIDDEN, ClassificationLoss, Draws
from aegl.longtail.losses._activations import ACTIVATIONS, ActivationName
from aegl.longtail.losses._masks import above
from aegl.longtail.losses._weighted_sum import ClosedForm, PlainForm, RowWeights, ScaledMask, weighted_sum
from aegl.longtail.statistics import ClassStatistics

Normalization = Literal["num_proposals", "num_foreground", "sum_of_weights"]
PriorProb = Annotated[
    float | None, Field(gt=0, lt=1, description="Score every class starts from; null for classifier bias 0.")
]
Objectness = Annotated[bool, Field(description="Add a background column; scores become p_i (1 - p_background).")]


class ElementwiseLoss(ClassificationLoss):
    """Weighted binary cross-entropy summed over proposals and classes; subclasses say only what each element weighs.

    ``L = loss_weight * sum_ri w_ri * CE(z_ri, t_ri) / normaliser``. The weights are constants: they are computed from
    detached probabilities. All counts are those of this process.

    Args:
        stats: counts of the training set.
        activation: maps a logit to a probability.
        prior_prob: probability every class starts from (classifier bias), or None for bias 0.
        objectness: add a background column (C+1 logits, weight 1) whose target is 1 on background rows; scores become
            ``p_i * (1 - p_background)``. The column starts at bias 0.
        background_column: add that column without a part in the scores.
        normalization: ``num_proposals`` divides by N, zero-weight rows included; ``num_foreground`` by the number of
            foreground rows (at least 1); ``sum_of_weights`` by the sum of all weights but those of hidden classes.
        loss_weight: factor of the whole term.
    """

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        activation: ActivationName = "sigmoid",
        prior_prob: float | None = 0.01,
        objectness: bool = False,
        background_column: bool = False,
        normalization: Normalization = "num_proposals",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(stats)
        self.num_logits = self.num_classes + int(objectness or background_column)
        self.activation = ACTIVATIONS[activation]
        self.prior_prob = prior_prob
        self.objectness = objectness
        self.normalization = normalization
        self.loss_weight = loss_weight

    def init_classifier(self, layer: nn.Module) -> None:
        """Weights N(0, 0.01); class biases such that every class starts at ``prior_prob``."""
        super().init_classifier(layer)
        bias = getattr(layer, "bias", None)
        if self.prior_prob is not None and isinstance(bias, Tensor):
            nn.init.constant_(bias[: self.num_classes], self.activation.logit(self.prior_prob))

    def element_weights(self, probabilities: Tensor, labels: Tensor, draws: Draws) -> Tensor | RowWeights | None:
        """What each element weighs; None for 1 everywhere. Runs without gradient, autocast off.

        A function of some of the rows spares the whole matrix; it is called once for each row, and the probabilities
        are overwritten afterwards.

        Args:
            probabilities: ``[N, C]`` activations, float32 or float64.
            labels: ``[N]`` int64, ``0..C-1`` foreground, ``C`` background.
            draws: injected random tensors; empty in training.

        Returns:
            ``[N, C]`` non-negative weights in the dtype of ``probabilities``, a function that gives those of some
            rows, or None.
        """
        return None

    def element_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """``[n, num_logits]`` losses before weighting, of some of the rows: the cross-entropy of the activation.

        Each may depend on its own logit only; autograd differentiates it.

        Args:
            logits: ``[n, num_logits]``, float32 or float64.
            targets: ``[n, num_logits]`` bool, true at each row's label.
        """
        return self.activation.cross_entropy(logits, targets)

    def element_form(self) -> ClosedForm | PlainForm:
        """How :meth:`element_losses` and its derivative are computed: in closed form where one is known.

        A subclass with losses of its own gets them from autograd, which takes two to three times as long, unless it
        overrides this too.
        """
        is_own = type(self).element_losses is not ElementwiseLoss.element_losses
        return self.element_losses if is_own else self.activation

    def background_weights(self, logits: Tensor, labels: Tensor) -> Tensor:
        """``[N]`` weights of the background column, where there is one: 1. Runs like :meth:`element_weights`.

        Args:
            logits: ``[N, num_logits]``, detached.
            labels: ``[N]`` int64.
        """
        return torch.ones_like(logits[:, -1])

    def observe_gradients(self, gradients: Tensor, labels: Tensor) -> None:
        """Told in training of the step's gradients, for state that follows from them. Runs without gradient.

        Args:
            gradients: ``[N, C]``, of the summed loss by the logits, weights included; at most 0 at a positive term
                and at least 0 at a negative one.
            labels: ``[N]`` int64.
        """

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ClassificationLoss.forward` for shapes."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            probabilities = self.activation.probability_for_weights(logits.detach())
            weights, extra = self._weights(logits.detach(), probabilities, labels, draws or {})
            total, gradients = weighted_sum(logits, probabilities, labels, self.element_form(), weights, extra)
            if weights is not None:
                self.diagnostics.update(active_negatives(weights.active.long(), labels, self.num_classes))
            if self.training:
                self.observe_gradients(gradients[:, : self.num_classes], labels)
            return {"cls": self.loss_weight * total / self._normalizer(labels, weights, extra, logits.detach())}

    def row_weighted(self, logits: Tensor, labels: Tensor, row_weights: Tensor) -> Tensor:
        """The summed loss of unweighted elements with a weight for each row, for losses built upon this one.

        Args:
            logits: ``[N, num_logits]``, float32 or float64.
            labels: ``[N]`` int64.
            row_weights: ``[N]``, constants in the dtype of the logits.
        """
        probabilities = self.activation.probability_for_weights(logits.detach())
        return weighted_sum(logits, probabilities, labels, self.element_form(), row_weights[:, None])[0]

    def scores(self, logits: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.scores`; float32 at least, so that no two scores tie for want of digits."""
        probabilities = self.activation.probability(at_least_float32(logits))
        if self.num_logits == self.num_classes:
            return probabilities
        classes, background = probabilities.split([self.num_classes, 1], dim=-1)
        return classes * (1 - background) if self.objectness else classes

    @torch.no_grad()
    def _weights(
        self, logits: Tensor, probabilities: Tensor, labels: Tensor, draws: Draws
    ) -> tuple[_CountedWeights | None, Tensor | None]:
        """The classes' weights, and ``[N, 1]`` of a background column."""
        weights = self.element_weights(probabilities[:, : self.num_classes], labels, draws)
        if weights is None:
            return None, None
        classes = logits[:, : self.num_classes]
        counted = _CountedWeights(weights, classes, summed=self.normalization == "sum_of_weights")
        if self.num_logits == self.num_classes:
            return counted, None
        return counted, self.background_weights(logits, labels)[:, None]

    @torch.no_grad()
    def _normalizer(
        self, labels: Tensor, weights: _CountedWeights | None, extra: Tensor | None, logits: Tensor
    ) -> Tensor | float:
        if self.normalization == "num_proposals":
            return float(max(len(labels), 1))
        if self.normalization == "num_foreground":
            return (labels < self.num_classes).sum().clamp(min=1)
        if weights is None:
            total = above(logits, HIDDEN).sum()
        else:
            total = weights.total if extra is None else weights.total + (extra * above(logits[:, -1:], HIDDEN)).sum()
        return torch.where(total > 0, total, 1.0)


class _CountedWeights:
    """Weights of some rows at a time, counted as they are given.

    Args:
        weights: all, or a function of some rows.
        logits: ``[N, C]``.
        summed: whether :attr:`total` is wanted.
    """

    def __init__(self, weights: Tensor | RowWeights, logits: Tensor, *, summed: bool) -> None:
        self._weights = weights
        self._logits = logits if summed else None
        self.active = logits.new_zeros(len(logits))
        """``[N]`` how many weights of the row are not zero."""
        self.total = logits.new_zeros(())
        """Sum of the weights of classes that are not hidden."""

    def __call__(self, rows: slice) -> Tensor:
        weights = self._counted(rows)
        if self._logits is not None:
            self.total += above(self._logits[rows], HIDDEN).mul_(weights).sum()
        return weights

    def _counted(self, rows: slice) -> Tensor:
        if isinstance(self._weights, ScaledMask):
            mask = self._weights.mask(rows)
            torch.sum(mask, dim=1, out=self.active[rows])
            return mask.mul_(self._weights.factor)
        weights = self._weights(rows) if callable(self._weights) else self._weights[rows]
        torch.sum(above(weights, 0.0), dim=1, out=self.active[rows])
        return weights


def at_least_float32(values: Tensor) -> Tensor:
    """``values`` in float32, or in float64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """``[N, C]`` bool, true at each foreground row's label; rows of background (C) are empty."""
    columns = torch.zeros(len(labels), num_classes + 1, dtype=torch.bool, device=labels.device)
    return columns.scatter_(1, labels[:, None], True)[:, :num_classes]


def active_negatives(active: Tensor, labels: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Share of the negative terms (t = 0) whose weight is not zero, over foreground rows and over background rows.

    Args:
        active: ``[N]`` int64, how many terms of the row have a weight above 0; the positive one always has.
        labels: ``[N]``.
        num_classes: ``C``.

    Returns:
        Scalars in [0, 1]; 0 where there are no such rows.
    """
    foreground = labels < num_classes
    num_foreground = foreground.sum()
    active_foreground = (active * foreground).sum() - num_foreground
    active_background = (active * ~foreground).sum()
    terms_foreground = num_foreground * (num_classes - 1)
    terms_background = (len(labels) - num_foreground) * num_classes
    return {
        "active_negatives_foreground": active_foreground / terms_foreground.clamp(min=1),
        "active_negatives_background": active_background / terms_background.clamp(min=1),
    }
