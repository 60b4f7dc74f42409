"""FASA: Feature Augmentation and Sampling Adaptation for Long-Tailed Instance Segmentation (ICCV 2021)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from aegl.longtail.auxiliary._affinity_propagation import affinity_propagation
from aegl.longtail.auxiliary._class_moments import ClassMoments
from aegl.longtail.base import AuxiliaryLoss, ClassificationLoss, Draws, Rows
from aegl.longtail.losses._distributed import rows_of_all_ranks
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.statistics import ClassStatistics


class Fasa(AuxiliaryLoss):
    """Virtual features, drawn from each class's mean and variance, train the classifier with its own loss.

    In each step from ``start_epoch`` on, a class that has been seen gives one feature ``mean + sqrt(variance) N(0, 1)``
    with probability ``q``. The term ``fasa`` is ``loss_weight`` times the classification loss of these features, which
    divides by their number itself. ``q`` starts at ``(1 / n) / sum(1 / n)``. After each epoch the classes with like
    means form groups (affinity propagation on squared distances); ``q`` grows by the factor ``increase`` where the
    group's loss has fallen since the epoch before, and shrinks by ``decrease`` where it has risen.

    A class's loss is the mean of ``-log score`` of its own regions over an epoch, each measured before the step that
    learns from it. State is gathered from all processes. Draws: ``emit`` (``[C]``, uniform) and ``noise`` (``[C, F]``,
    normal).
    """

    probability: Tensor
    """``[C]`` float64: q."""
    loss_sum: Tensor
    """``[C]`` float64: losses of the regions of this epoch."""
    loss_count: Tensor
    """``[C]`` float64: their numbers."""
    last_loss: Tensor
    """``[C]`` float64: mean loss in the last epoch that had regions of the class; -1 before."""
    closed: Tensor
    """int64 scalar: epochs after which ``probability`` has been adapted."""

    reruns_classifier = True

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        momentum: Annotated[
            float, Field(gt=0, le=1, description="Weight of a step's mean and variance of a class in the running ones.")
        ] = 0.1,
        start_epoch: Annotated[float, Field(ge=0, description="Finished epochs before the first virtual feature.")] = 1,
        increase: Annotated[
            float, Field(ge=1, description="Factor of the sampling probability of groups whose loss has fallen.")
        ] = 1.1,
        decrease: Annotated[
            float, Field(ge=0, le=1, description="Factor of the sampling probability of groups whose loss has risen.")
        ] = 0.9,
        loss_weight: Annotated[float, Field(ge=0, description="Factor of the loss of the virtual features.")] = 0.1,
    ) -> None:
        super().__init__(stats)
        self.start_epoch = start_epoch
        self.factors = (increase, decrease)
        self.loss_weight = loss_weight
        counts = torch.as_tensor(stats.instance_counts, dtype=torch.float64)
        inverse = torch.where(counts > 0, 1 / counts.clamp(min=1), 0.0)
        self.register_buffer("probability", inverse / inverse.sum().clamp(min=torch.finfo(torch.float64).tiny))
        self.register_buffer("loss_sum", torch.zeros(self.num_classes, dtype=torch.float64))
        self.register_buffer("loss_count", torch.zeros(self.num_classes, dtype=torch.float64))
        self.register_buffer("last_loss", torch.full((self.num_classes,), -1.0, dtype=torch.float64))
        self.register_buffer("closed", torch.zeros((), dtype=torch.int64))
        self.moments = ClassMoments(self.num_classes, momentum)

    def forward(self, rows: Rows, loss: ClassificationLoss, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``fasa``; see :meth:`AuxiliaryLoss.forward`."""
        if self.training:
            if math.floor(self.epoch) > self.closed:
                self._close_epoch()
            self._observe(rows, loss)
        if self.epoch < self.start_epoch:
            return {"fasa": at_least_float32(rows.logits[:0]).sum()}
        features, labels = self._virtual(rows.features, draws)
        logits = rows.classifier(features)
        with _undisturbed(loss):
            return {"fasa": self.loss_weight * torch.stack(list(loss(logits, labels).values())).sum()}

    def _virtual(self, like: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """``[V, F]`` features and ``[V]`` labels."""
        device = like.device
        uniform = torch.rand(self.num_classes, device=device) if draws is None else draws["emit"]
        labels = ((uniform < self.probability) & self.moments.seen.to(device)).nonzero().squeeze(1)
        size = (len(labels), like.shape[1])
        noise = torch.randn(size, device=device) if draws is None else draws["noise"][labels]
        mean, variance = (part[labels] for part in self.moments.of(like))
        return (mean + variance.sqrt() * noise).to(torch.promote_types(like.dtype, torch.float32)), labels

    @torch.no_grad()
    def _observe(self, rows: Rows, loss: ClassificationLoss) -> None:
        chosen = ((rows.labels < self.num_classes) & ~rows.remembered).nonzero().squeeze(1)
        with torch.autocast(rows.logits.device.type, enabled=False):
            scores = loss.scores(rows.logits[chosen]).gather(1, rows.labels[chosen, None]).squeeze(1).double()
        found = (rows.features[chosen], rows.labels[chosen], -scores.clamp(min=1e-12).log())
        features, labels, losses = (rows_of_all_ranks(each) for each in found)
        member = (labels == torch.arange(self.num_classes, device=labels.device)[:, None]).double()
        self.loss_sum += member @ losses
        self.loss_count += member.sum(dim=1)
        self.moments.update(at_least_float32(features).double(), labels)

    @torch.no_grad()
    def _close_epoch(self) -> None:
        """Adapt the probabilities to how the losses have changed, and start to measure the next epoch."""
        measured = self.loss_count > 0
        now = self.loss_sum / self.loss_count.clamp(min=1)
        change = torch.where(measured & (self.last_loss >= 0), now - self.last_loss, 0.0)
        if change.any():
            seen = self.moments.seen.nonzero().squeeze(1)
            means = self.moments.mean[seen]
            distances = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist")
            groups = affinity_propagation(-distances.square()).to(self.probability.device)
            seen = seen.to(self.probability.device)
            self.probability[seen] = adapt(self.probability[seen], groups, change[seen], *self.factors)
        self.last_loss.copy_(torch.where(measured, now, self.last_loss))
        self.loss_sum.zero_()
        self.loss_count.zero_()
        self.closed.fill_(math.floor(self.epoch))


def adapt(probability: Tensor, group: Tensor, change: Tensor, increase: float, decrease: float) -> Tensor:
    """Probabilities after an epoch, in [0, 1].

    Args:
        probability: ``[n]`` of the classes.
        group: ``[n]`` int64 from 0 on.
        change: ``[n]`` loss in this epoch less that before, 0 where not both are known; a group's is the sum.
        increase: factor for a group whose loss has fallen.
        decrease: factor for a group whose loss has risen.
    """
    member = F.one_hot(group).double()  # products add up in the same order on every process
    rise = member @ (member.T @ change)
    grown, shrunk = (probability * factor for factor in (increase, decrease))
    return torch.where(rise < 0, grown, torch.where(rise > 0, shrunk, probability)).clamp(0, 1)


@contextlib.contextmanager
def _undisturbed(loss: ClassificationLoss) -> Iterator[None]:
    """Virtual features are no data: the loss's state and diagnostics stay those of the batch."""
    training, diagnostics = loss.training, dict(loss.diagnostics)
    loss.eval()
    try:
        yield
    finally:
        loss.train(training)
        loss.diagnostics = diagnostics
