"""Classifiers of several branches, each making one of a loss's groups of logits with layers of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aegl.errors import ConfigError


class BranchedClassifier(nn.Module):
    """A hidden layer of its own before each group of logits (Forest R-CNN: the classes, then each tree of parents).

    Branch ``i`` is ``linear_i(relu(hidden_i(x)))``. Only the first branch trains the shared layer: the others read its
    features detached.

    Args:
        in_features: length of the features after the first shared layer.
        width: of the hidden layers.
        column_groups: number of logits of each branch.
    """

    inputs = ("first",)

    def __init__(self, in_features: int, width: int, column_groups: Sequence[int]) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(in_features, width) for _ in column_groups)
        self.outputs = nn.ModuleList(nn.Linear(width, size) for size in column_groups)
        _init_hidden(self.hidden)

    def forward(self, first: Tensor) -> Tensor:
        """``[N, in_features]`` to ``[N, num_logits]``."""
        detached = first.detach()
        inputs = [first, *[detached] * (len(self.hidden) - 1)]
        branches = zip(inputs, self.hidden, self.outputs, strict=True)
        return torch.cat([output(F.relu(hidden(features))) for features, hidden, output in branches], dim=-1)

    def taken_from(self, head: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first branch is the rest of a plain head; see :func:`.classifiers.taken_from_plain_head`."""
        return _renamed(head, {"fc2": "hidden.0", "classifier": "outputs.0"})


class DualClassifier(nn.Module):
    """The usual classifier and, beside it, one with layers of its own (SimCal: the calibrated one); logits joined.

    Args:
        hidden_features: length of the features after the shared layers, read by the usual classifier.
        pooled_features: length of the pooled features, read by the other.
        column_groups: number of logits of each of the two.
    """

    inputs = ("hidden", "pooled")

    def __init__(self, hidden_features: int, pooled_features: int, column_groups: Sequence[int]) -> None:
        super().__init__()
        if len(column_groups) != 2:
            raise ConfigError(
                f"box.classifier=dual: makes two groups of logits, and this loss has {len(column_groups)}; it is meant "
                "for loss.name=simcal"
            )
        original, calibrated = column_groups
        self.original = nn.Linear(hidden_features, original)
        self.calibrated = nn.Sequential(
            nn.Linear(pooled_features, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, calibrated),
        )
        _init_hidden([self.calibrated[0], self.calibrated[2]])

    @property
    def outputs(self) -> tuple[nn.Module, ...]:
        """See :func:`aegl.longtail.classifiers.output_layers`."""
        return (self.original, self.calibrated[-1])

    def forward(self, hidden: Tensor, pooled: Tensor) -> Tensor:
        """``[N, hidden_features]`` and ``[N, pooled_features]`` to ``[N, num_logits]``."""
        return torch.cat([self.original(hidden), self.calibrated(pooled)], dim=-1)

    def taken_from(self, head: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The classifier, and a copy of the whole head; see :func:`.classifiers.taken_from_plain_head`."""
        calibrated = {"fc1": "calibrated.0", "fc2": "calibrated.2", "classifier": "calibrated.4"}
        return _renamed(head, {"classifier": "original"}) | _renamed(head, calibrated)


def _init_hidden(layers: Iterable[nn.Module]) -> None:
    """As the shared layers of the box head."""
    for layer in layers:
        assert isinstance(layer, nn.Linear)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def _renamed(head: Mapping[str, Tensor], layers: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of some layers under other names of these layers."""
    parts = [(name.rpartition("."), value) for name, value in head.items()]
    return {f"{layers[layer]}.{kind}": value for (layer, _, kind), value in parts if layer in layers}
