"""The contracts between long-tail methods and everything else.

A loss owns its logits: it says how many there are, how the classifier that makes them starts, and how they become
scores. The other parts each change one more thing: an auxiliary loss adds a term, a calibrator changes the scores, a
selector the regions that are trained on, a memory the features. The box head, the trainer and the exporter call the
members below and know no method by name.

Parts take the statistics of the training set first and their options as keyword arguments with defaults, each annotated
with ``Annotated[type, pydantic.Field(ge=..., description=...)]`` or ``Literal[...]``: that signature is the only place
where an option's name, type, range, help and default are written; the configuration reads it. State that changes during
training lives in registered buffers with stable names and is summed over ranks before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Rows:
    """The regions that a batch trains the box head on, as the classifier saw them."""

    logits: Tensor
    """``[N, num_logits]``, any float dtype."""
    labels: Tensor
    """``[N]`` int64, ``0..C-1`` foreground, ``C`` background."""
    features: Tensor
    """``[N, F]``: what the classifier made the logits of."""
    classifier: nn.Module
    """``[N, F]`` features to ``[N, num_logits]`` logits."""
    instance: Tensor
    """``[N]`` int64: which ground-truth object of the batch a region is matched to; -1 for background and memories."""
    remembered: Tensor
    """``[N]`` bool: true for regions that come from a memory and not from the batch's images."""


@dataclass(frozen=True)
class Candidates:
    """The boxes of a training batch's region proposals before non-maximum suppression, and the ground truth."""

    boxes: Tensor
    """``[B, N, 4]`` float32 ``x1 y1 x2 y2``."""
    scores: Tensor
    """``[B, N]`` float32 in [0, 1]; negative for padding, which is no candidate."""
    levels: Tensor
    """``[B, N]`` int64; boxes of different levels never suppress each other."""
    truth: Tensor
    """``[B, G, 4]`` float32: boxes of the ground truth, padded."""
    labels: Tensor
    """``[B, G]`` int64 in ``0..C-1``; -1 for padding."""


class ClassificationLoss(nn.Module):
    """Base of every classification loss of the box head.

    Its training state is not read by :meth:`scores`. Label-space constants that :meth:`scores` needs are buffers.
    """

    num_logits: int
    """Columns of the classifier: C, C+1, ... as the loss needs. A background column, if any, is the last one."""
    is_softmax = False
    """Whether the columns are C+1 logits of one softmax, background last."""
    reruns_classifier = False
    """Whether it makes logits of features that it keeps: the classifier must read one vector per region."""
    class_descriptions: tuple[str, ...] = ()
    """What :meth:`describe_classes` wants to know of the classes, by the names listed there."""
    class_tables: tuple[str, ...] = ()
    """Names of the persistent buffers that :meth:`describe_classes` fills."""

    def __init__(self, stats: ClassStatistics) -> None:
        super().__init__()
        self.num_classes = stats.num_classes
        self.progress = 0.0
        self.epoch = 0.0
        self.diagnostics: dict[str, Tensor] = {}
        """Detached scalars about the last forward pass, for logs only; not loss terms, not reduced over ranks."""

    def describe_classes(self, vectors: Mapping[str, Tensor]) -> None:
        """Told once, before training starts and not when it is resumed, what the classes are like.

        Args:
            vectors: what :attr:`class_descriptions` asks for, on the CPU: ``classifier``, ``[C, F]`` rows of the
                trained classifier that the run starts from; ``mask``, ``[C, 784]`` mean 28 x 28 masks of the training
                objects, each over its own box; ``parent``, ``[C]`` int64, the number of each class's parent, from 0.

        Raises:
            ConfigError: if the options do not fit these classes.
        """

    def init_classifier(self, layer: nn.Module) -> None:
        """Initialise a layer that makes logits. Default: weights N(0, 0.01), bias 0.

        A classifier of several branches has one such layer for each of :attr:`column_groups`; each is given in turn.
        """
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(weight, Tensor):
            nn.init.normal_(weight, std=0.01)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)

    @property
    def column_groups(self) -> tuple[int, ...]:
        """Sizes of the groups of columns that a classifier with several branches makes one by one; sum num_logits."""
        return (self.num_logits,)

    def step_begin(self, progress: float, epoch: float) -> None:
        """Told by the trainer before each step: the share of training that is done, in [0, 1), and finished epochs."""
        self.progress, self.epoch = progress, epoch

    def observe(self, rows: Rows) -> None:
        """Told of the rows before :meth:`forward` in training: for state that needs more than logits and labels."""

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """Named scalar loss terms, each already weighted; the trainer adds them up.

        Args:
            logits: ``[N, num_logits]``, any float dtype; computed in float32 at least, autocast switched off inside.
            labels: ``[N]`` int64, ``0..C-1`` foreground, ``C`` background.
            draws: random tensors to use instead of drawing (tests).

        A batch without rows, without foreground or without background gives a finite value connected to ``logits``.
        """
        raise TypeError(f"{type(self).__name__} does not define forward()")

    def class_logits(self, logits: Tensor) -> Tensor:
        """``[..., C]``: those of the ``[..., num_logits]`` columns that stand for the classes, in class order."""
        return logits[..., : self.num_classes]

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


class AuxiliaryLoss(nn.Module):
    """A further loss term on the rows of the box head, beside any classification loss."""

    reruns_classifier = False
    """See :attr:`ClassificationLoss.reruns_classifier`."""

    def __init__(self, stats: ClassStatistics) -> None:
        super().__init__()
        self.num_classes = stats.num_classes
        self.progress = 0.0
        self.epoch = 0.0

    def check(self, loss: ClassificationLoss) -> None:
        """Raise :class:`aegl.errors.ConfigError` if the term has no meaning beside this loss."""

    def step_begin(self, progress: float, epoch: float) -> None:
        """See :meth:`ClassificationLoss.step_begin`."""
        self.progress, self.epoch = progress, epoch

    def forward(self, rows: Rows, loss: ClassificationLoss) -> dict[str, Tensor]:
        """Named scalar terms, each already weighted and finite and connected to the logits whatever the rows."""
        raise TypeError(f"{type(self).__name__} does not define forward()")


class Calibrator(nn.Module):
    """Changes the scores of a trained model; part of the inference graph, absent from training."""

    def __init__(self, stats: ClassStatistics) -> None:
        super().__init__()
        self.num_classes = stats.num_classes

    def check(self, loss: ClassificationLoss) -> None:
        """Raise :class:`aegl.errors.ConfigError` if the scores of this loss cannot be calibrated so."""

    def forward(self, logits: Tensor, scores: Callable[[Tensor], Tensor]) -> Tensor:
        """``[..., num_logits]`` logits to ``[..., C]`` scores in [0, 1]; traceable.

        Args:
            logits: of the classifier.
            scores: the loss's own map from logits to scores.
        """
        raise TypeError(f"{type(self).__name__} does not define forward()")


class RegionSelector(nn.Module):
    """Decides which regions a batch trains on, beyond the usual sampling."""

    needs_focus = False
    """Whether :meth:`rows` has to know the class for which each image was drawn (`sampler=class_balanced`)."""

    def __init__(self, stats: ClassStatistics) -> None:
        super().__init__()
        self.num_classes = stats.num_classes

    def check(self, loss: ClassificationLoss) -> None:
        """Raise :class:`aegl.errors.ConfigError` if the selection has no meaning beside this loss."""

    def survivors(self, candidates: Candidates, plain: Callable[[float], Tensor]) -> Tensor | None:
        """``[B, N]`` bool, which proposals outlive non-maximum suppression in training; None, the default: as at test.

        Args:
            candidates: before suppression.
            plain: plain suppression within each level: from an IoU to the ``[B, N]`` bool that outlive it.
        """
        return None

    def rows(self, labels: Tensor, images: Tensor, focus: Tensor | None) -> Tensor:
        """Which of the sampled regions train the box head; default all.

        Args:
            labels: ``[R]`` int64, background ``C``.
            images: ``[R]`` int64, image of the batch that each region lies in.
            focus: ``[B]`` int64, class for which the sampler drew each image, -1 for none; None without such a sampler.

        Returns:
            Indices of the rows to keep, int64.
        """
        return torch.arange(len(labels), device=labels.device)


class FeatureMemory(nn.Module):
    """Pooled features of earlier regions, which train the box head again."""

    def __init__(self, stats: ClassStatistics) -> None:
        super().__init__()
        self.num_classes = stats.num_classes

    def check(self, loss: ClassificationLoss) -> None:
        """Raise :class:`aegl.errors.ConfigError` if the memory cannot serve this loss."""

    def probes(self, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Regions around ground truth whose features are wanted: ``[G, 4]`` to ``[G, J, 4]``, network pixels.

        Args:
            boxes: ground-truth boxes of one image.
            image_size: height and width of the network input.
        """
        raise TypeError(f"{type(self).__name__} does not define probes()")

    def store(self, pooled: Tensor, labels: Tensor, offsets: Tensor) -> None:
        """Take in features.

        Args:
            pooled: ``[M, channels, S, S]`` features of the probes, detached.
            labels: ``[M]`` int64 in ``0..C-1``.
            offsets: ``[M, 4]`` float32: the box head's regression targets from each probe to its object.
        """
        raise TypeError(f"{type(self).__name__} does not define store()")

    def recall(self, loss: ClassificationLoss) -> tuple[Tensor, Tensor, Tensor]:
        """Features to train on in this step, as :meth:`store` took them in; any number of rows, also none."""
        raise TypeError(f"{type(self).__name__} does not define recall()")
