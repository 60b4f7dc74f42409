"""The layers that make class logits from region features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aegl.errors import ConfigError
from aegl.longtail.branches import BranchedClassifier, DualClassifier

ClassifierKind = Literal["linear", "cosine", "branches", "dual"]


class CosineLinear(nn.Module):
    """``z = temperature * x/(|x|^power + eps) . w/(|w|^power + eps) + b``: linear on normalised features and weights.

    The definition is mmdetection's ``NormedLinear``. The bias is learnt and is not scaled by the temperature, so the
    prior that a sigmoid loss writes into it holds here as for a linear layer: a fresh layer starts about
    ``temperature / sqrt(in_features)`` around the prior's logit, whatever the scale of its weights.

    Args:
        in_features: length of a feature vector.
        out_features: number of logits.
        temperature: scale of the cosine, > 0.
        power: exponent of the norms.
        eps: added to the norms, so that a zero feature gives the bias and not NaN.
    """

    def __init__(
        self, in_features: int, out_features: int, *, temperature: float = 20.0, power: float = 1.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.temperature = temperature
        self.power = power
        self.eps = eps
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """``[N, in_features]`` to ``[N, out_features]`` logits."""
        return F.linear(self.temperature * self._normalise(features), self._normalise(self.weight), self.bias)

    def extra_repr(self) -> str:
        """Sizes and temperature, for printing the model."""
        out_features, in_features = self.weight.shape
        return f"in_features={in_features}, out_features={out_features}, temperature={self.temperature}"

    def _normalise(self, rows: Tensor) -> Tensor:
        return rows / (torch.linalg.vector_norm(rows, dim=-1, keepdim=True).pow(self.power) + self.eps)


def classifier_inputs(layer: nn.Module) -> tuple[str, ...]:
    """Which of the box head's features a classifier reads, in the order of its arguments.

    ``pooled`` (flattened), ``first`` (after the first shared layer) or ``hidden`` (after the second): what its
    attribute ``inputs`` says; most have none and read ``hidden``.
    """
    return getattr(layer, "inputs", ("hidden",))


def output_layers(classifier: nn.Module) -> tuple[nn.Module, ...]:
    """The layers that make logits, in the order of the loss's ``column_groups``: its ``outputs``, or itself."""
    return tuple(getattr(classifier, "outputs", (classifier,)))


def taken_from_plain_head(classifier: nn.Module, head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a classifier can start with when the model it starts from has a linear one behind the shared layers.

    Args:
        classifier: of another kind than linear.
        head: the trained layers ``fc1``, ``fc2`` and ``classifier`` of that model: names to tensors.

    Returns:
        Names of the classifier's own tensors to values, which may be of another shape; nothing if it cannot start so.
    """
    taken_from = getattr(classifier, "taken_from", None)
    return {} if taken_from is None else taken_from(head)


def build_classifier(
    kind: ClassifierKind,
    in_features: int,
    num_logits: int,
    temperature: float = 20.0,
    *,
    column_groups: Sequence[int] = (),
    pooled_features: int = 0,
) -> nn.Module:
    """A classifier that makes ``[N, num_logits]`` of the features it asks for (:func:`classifier_inputs`).

    Its output layers are to be initialised by the loss's ``init_classifier``.

    Args:
        kind: `box.classifier`.
        in_features: length of a region's features after each of the shared layers.
        num_logits: the loss's ``num_logits``.
        temperature: scale of the cosine classifier; the others have none.
        column_groups: the loss's ``column_groups``, for classifiers of several branches; default one of all logits.
        pooled_features: length of a region's flattened pooled features.

    Raises:
        ConfigError: for another kind, or one that does not go with these groups of logits.
    """
    groups = tuple(column_groups) or (num_logits,)
    if kind == "linear":
        return nn.Linear(in_features, num_logits)
    if kind == "cosine":
        return CosineLinear(in_features, num_logits, temperature=temperature)
    if kind == "branches":
        return BranchedClassifier(in_features, in_features, groups)
    if kind == "dual":
        return DualClassifier(in_features, pooled_features, groups)
    raise ConfigError(f"box.classifier={kind}: must be one of {', '.join(get_args(ClassifierKind))}")
