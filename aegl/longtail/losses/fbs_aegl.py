"""FBS-AEGL: Foreground and Background Separate Adaptive Equilibrium Gradients Loss (Hao et al., CVM 2024).

No code was published; ``docs/methods.md`` says how each ambiguous passage of the paper is read here.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from aegl.longtail.base import Draws, LossWeight
from aegl.longtail.losses._activations import ActivationName
from aegl.longtail.losses._class_factors import (
    LowFrequency,
    LowFrequencyMax,
    LowFrequencyShare,
    low_frequency_classes,
    weight_factors,
)
from aegl.longtail.losses._elementwise import ElementwiseLoss, Normalization, Objectness, PriorProb
from aegl.longtail.losses._keep_rules import SigmaScope, share_of_low_frequency
from aegl.longtail.losses._masks import DrawnBelow, at_least
from aegl.longtail.losses._weighted_sum import RowWeights, ScaledMask
from aegl.longtail.statistics import ClassStatistics


class FbsAegl(ElementwiseLoss):
    """Sigmoid (or Gumbel) cross-entropy whose negative terms act only where they are needed (Eq. 4, 6, 8-10).

    With ``p`` the detached activation, ``WF_i = (1 - gamma) / (1 - gamma^n_i)`` and ``sigma`` the share of
    low-frequency labels among the foreground rows of the batch::

        foreground row of class y:  w_i = WF_i * [i = y or p_i >= mu]
        background row:             w_i = WF_i * [p_i >= mu] * [class i is frequent or u < sigma],  u ~ Uniform[0, 1)

    Defaults are the paper's. Until ``gate_start`` of training is done every weight is plain ``WF_i``. A row kind whose
    ``*_weight`` switch is off weighs 1. Draws: ``uniform``, ``[N, C]``, or ``[C]`` with ``bernoulli_draw="class"``.
    Ranges are checked where options are read (:mod:`aegl.longtail.options`), not here.
    """

    weight_factor: Tensor
    low_frequency: Tensor

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        gamma: Annotated[float, Field(ge=0, lt=1, description="Base of the weight factor; 0 gives factor 1.")] = 0.7,
        mu: Annotated[
            float, Field(ge=0, description="A negative term acts from this probability on; above 1: never.")
        ] = 0.7,
        foreground_weight: Annotated[
            bool, Field(description="Weight foreground rows (Eq. 8); false: weight 1.")
        ] = True,
        background_weight: Annotated[
            bool, Field(description="Weight background rows (Eq. 9); false: weight 1.")
        ] = True,
        background_threshold: Annotated[bool, Field(description="Apply the p >= mu gate to background rows.")] = True,
        weight_factor: Annotated[bool, Field(description="Use the weight factor WF; false: 1, gates kept.")] = True,
        weight_factor_normalization: Annotated[
            Literal["none", "mean_one"], Field(description="mean_one divides WF by its mean over the classes.")
        ] = "none",
        activation: Annotated[
            ActivationName, Field(description="Logit to score; gumbel is FBS-AEGL with GOL (Table 5).")
        ] = "sigmoid",
        bernoulli: Annotated[
            Literal["uniform", "literal"],
            Field(description="Reading of Eq. 10: uniform keeps with probability sigma, literal with 1 - sigma."),
        ] = "uniform",
        bernoulli_draw: Annotated[
            Literal["proposal_class", "class"], Field(description="One draw per proposal and class, or per class.")
        ] = "proposal_class",
        bernoulli_groups: Annotated[
            Literal["low", "all"],
            Field(description="Draw for low-frequency classes only, or frequent ones (1-sigma) too."),
        ] = "low",
        sigma_scope: SigmaScope = "local",
        empty_foreground: Annotated[
            Literal["keep", "drop"], Field(description="Drawn background terms of a batch without foreground.")
        ] = "keep",
        low_frequency: LowFrequency = "groups",
        low_frequency_max: LowFrequencyMax = 100,
        low_frequency_share: LowFrequencyShare = 1.1e-3,
        normalization: Annotated[
            Normalization, Field(description="What the summed loss is divided by.")
        ] = "num_proposals",
        prior_prob: PriorProb = 0.01,
        loss_weight: LossWeight = 1.0,
        gate_start: Annotated[
            float, Field(ge=0, le=1, description="Share of training with plain WF weights before gates and draws act.")
        ] = 0.0,
        gate_columns: Annotated[
            Literal["all", "low"],
            Field(description="Which columns the p >= mu gates act on: all, or low-frequency ones."),
        ] = "all",
        foreground_gate: Annotated[
            Literal["absolute", "relative"], Field(description="Foreground rows: p_i >= mu, or p_i >= mu * p_true.")
        ] = "absolute",
        objectness: Objectness = False,
    ) -> None:
        super().__init__(
            stats,
            activation=activation,
            prior_prob=prior_prob,
            objectness=objectness,
            normalization=normalization,
            loss_weight=loss_weight,
        )
        self.mu = mu
        self.foreground_weight = foreground_weight
        self.background_weight = background_weight
        self.background_threshold = background_threshold
        self.bernoulli = bernoulli
        self._draws_classes = bernoulli_draw == "class"
        self.bernoulli_groups = bernoulli_groups
        self.sigma_scope = sigma_scope
        self.empty_foreground = empty_foreground
        self.gate_start = gate_start
        self.gate_columns = gate_columns
        self.foreground_gate = foreground_gate
        factor = weight_factors(stats, gamma if weight_factor else 0.0, weight_factor_normalization == "mean_one")
        # Training-only constants that follow from the statistics: no part of a checkpoint or an exported graph.
        self.register_buffer("weight_factor", factor, persistent=False)
        low = low_frequency_classes(stats, low_frequency, low_frequency_max, low_frequency_share)
        self.register_buffer("low_frequency", low, persistent=False)

    def element_weights(self, probabilities: Tensor, labels: Tensor, draws: Draws) -> RowWeights:
        """Eq. 6: weights of some rows; see :meth:`ElementwiseLoss.element_weights`."""
        foreground = (labels < self.num_classes)[:, None]
        mask = self._mask(probabilities, labels, foreground, draws)
        weights = ScaledMask(mask, self.weight_factor.to(probabilities.dtype))
        if self.foreground_weight and self.background_weight:
            return weights
        unweighted = torch.where(foreground, not self.foreground_weight, not self.background_weight)
        return lambda rows: weights(rows).masked_fill_(unweighted[rows], 1.0)

    def _mask(self, probabilities: Tensor, labels: Tensor, foreground: Tensor, draws: Draws) -> RowWeights:
        """1 where a term of some rows acts, else 0. What all blocks share is computed here, once."""
        if self.progress < self.gate_start:
            return lambda rows: torch.ones_like(probabilities[rows])
        column = labels.clamp(max=self.num_classes - 1)[:, None]
        is_foreground = foreground.to(probabilities.dtype)
        threshold = self._threshold(probabilities, column, foreground)
        keep = self._keep_rule(labels, draws, self.weight_factor.to(probabilities.dtype))

        def of_rows(rows: slice) -> Tensor:
            mask, never_drawn = keep(rows), is_foreground[rows]
            torch.maximum(mask, never_drawn, out=mask)
            mask.mul_(self._gate(probabilities[rows], threshold[rows]))
            # A row's own term is never gated; background rows, which have none, bring 0 and change nothing.
            return mask.scatter_reduce_(1, column[rows], never_drawn, "amax")

        return of_rows

    def _keep_rule(self, labels: Tensor, draws: Draws, like: Tensor) -> RowWeights:
        """A function that gives 1 where background terms of some rows are kept, else 0: wBer of Eq. 10."""
        rate, always = self._rates(labels)
        # b = [u < rate] is 0 or 1. The literal reading compares it again: kept where b < rate.
        is_literal = self.bernoulli == "literal"
        drawn = DrawnBelow(rate if is_literal else rate.masked_fill(always, 1.0), draws, like)
        can_be, must_be = (rate > 0).to(like.dtype), always.to(like.dtype)

        def of_rows(rows: slice, out: Tensor) -> Tensor:
            kept = drawn.write(rows, out)
            return torch.maximum(kept.neg_().add_(1).mul_(can_be), must_be, out=kept) if is_literal else kept

        if self._draws_classes:
            per_class = of_rows(slice(None), torch.empty_like(like)[None])
            return lambda rows: per_class.repeat(len(labels[rows]), 1)
        return lambda rows: of_rows(rows, like.new_empty(len(labels[rows]), self.num_classes))

    def _threshold(self, probabilities: Tensor, column: Tensor, foreground: Tensor) -> Tensor:
        """``[N, 1]``: what a probability has to reach, ``mu`` (Eq. 8, 9) or what an option makes of it."""
        threshold = probabilities.new_full((len(column), 1), self.mu)
        if self.foreground_gate == "relative":
            threshold = torch.where(foreground, self.mu * probabilities.gather(1, column), threshold)
        if not self.background_threshold:
            threshold = torch.where(foreground, threshold, -math.inf)
        return threshold

    def _gate(self, probabilities: Tensor, threshold: Tensor) -> Tensor:
        """``[n, C]``, 1 where ``p_i`` reaches the threshold or the class has none, else 0."""
        gate = at_least(probabilities, threshold)
        return gate.masked_fill_(~self.low_frequency, 1.0) if self.gate_columns == "low" else gate

    def _rates(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """``[C]`` float64 probability that a background term is kept (Eq. 10), and ``[C]`` bool which always are."""
        sigma, is_empty = share_of_low_frequency(labels, self.low_frequency, self.sigma_scope)
        self.diagnostics["sigma"] = sigma
        always = torch.zeros_like(self.low_frequency)
        rate = torch.where(self.low_frequency, sigma, 1 - sigma)
        # Without foreground sigma is undefined; the choice is made here and not by how a NaN compares.
        if self.empty_foreground == "keep":
            always = always | is_empty
        else:
            rate = rate.masked_fill(is_empty, 0.0)
        if self.bernoulli_groups == "low":
            always = always | ~self.low_frequency
        return rate, always
