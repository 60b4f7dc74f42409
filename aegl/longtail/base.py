"""The contract between a long-tail classification loss and everything else.

A loss owns its logits: it says how many there are, how the classifier that makes them starts, and how they become
scores. The box head, the trainer and the exporter call the members below and know no method by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from aegl.longtail.statistics import ClassStatistics

Draws = Mapping[str, Tensor]
"""Random tensors injected by tests in place of a loss's own draws, by the name the loss documents."""

LossWeight = Annotated[float, Field(ge=0, description="Factor of the whole classification loss.")]

HIDDEN = -8192.0
"""Logit of a class about which a row says nothing: probability 0, no loss, no gradient.

Finite, so that no loss can make NaN of it, and a power of two, so that it is the same in every float dtype.
"""


class ClassificationLoss(nn.Module):
    """Base of every classification loss of the box head.

    Subclasses take ``stats`` first and their hyper-parameters as keyword arguments with defaults, each annotated with
    ``Annotated[type, pydantic.Field(ge=..., description=...)]`` or ``Literal[...]``: that signature is the only place
    where a hyper-parameter's name, type, range, help and default are written; the configuration reads it.

    State that changes during training lives in registered buffers with stable names, is summed over ranks before it is
    used, and is not read by :meth:`scores`. Label-space constants that :meth:`scores` needs are buffers too.
    """

    num_logits: int
    """Columns of the classifier: C, C+1, ... as the loss needs. A background column, if any, is the last one."""

    def __init__(self, stats: ClassStatistics) -> None:
        super().__init__()
        self.num_classes = stats.num_classes
        self.progress = 0.0
        self.diagnostics: dict[str, Tensor] = {}
        """Detached scalars about the last forward pass, for logs only; not loss terms, not reduced over ranks."""

    def init_classifier(self, layer: nn.Module) -> None:
        """Initialise the layer that makes the logits. Default: weights N(0, 0.01), bias 0."""
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(weight, Tensor):
            nn.init.normal_(weight, std=0.01)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)

    def step_begin(self, progress: float) -> None:
        """Told by the trainer before each step: the share of training that is done, in [0, 1)."""
        self.progress = progress

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """Named scalar loss terms, each already weighted; the trainer adds them up.

        Args:
            logits: ``[N, num_logits]``, any float dtype; computed in float32 at least, autocast switched off inside.
            labels: ``[N]`` int64, ``0..C-1`` foreground, ``C`` background.
            draws: random tensors to use instead of drawing (tests).

        A batch without rows, without foreground or without background gives a finite value connected to ``logits``.
        """
        raise TypeError(f"{type(self).__name__} does not define forward()")

    def hide_unverified(self, logits: Tensor, labels: Tensor, verified: Tensor) -> Tensor:
        """Logits that no loss learns from where nobody knows whether a class is in the row's image.

        What comes back is for :meth:`forward`. A hidden class adds nothing to an element-wise loss and is out of the
        denominator of a softmax; a row's own class and columns after the ``C`` classes are never hidden.

        Args:
            logits: ``[N, num_logits]``; the first ``C`` columns are those of the classes.
            labels: ``[N]`` int64, background ``C``.
            verified: ``[N, C]`` bool.
        """
        classes = torch.arange(self.num_classes, device=labels.device)
        hidden = ~(verified | (labels[:, None] == classes))
        return logits.masked_fill(F.pad(hidden, (0, logits.shape[1] - self.num_classes)), HIDDEN)

    def scores(self, logits: Tensor) -> Tensor:
        """``[..., num_logits]`` logits to ``[..., C]`` scores in [0, 1]: pure, traceable, nothing written in place."""
        raise TypeError(f"{type(self).__name__} does not define scores()")
