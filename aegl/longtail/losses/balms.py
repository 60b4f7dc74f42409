"""BALMS: Balanced Meta-Softmax (Ren et al., NeurIPS 2020), the balanced sigmoid loss with learnt class weights."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.func import functional_call, grad

from aegl.longtail._class_rings import ClassRings
from aegl.longtail.base import HIDDEN, Draws, LossWeight, Rows
from aegl.longtail.losses._distributed import rows_of_all_ranks, sum_over_ranks
from aegl.longtail.losses._elementwise import PriorProb, at_least_float32, one_hot
from aegl.longtail.losses.balanced_softmax import BalancedSoftmax
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.statistics import ClassStatistics

Weights = dict[str, Tensor]
"""The parameters of the classifier by name."""

_BETAS = (0.9, 0.999)
_ADAM_EPS = 1e-8


class Balms(BalancedSoftmax):
    """The sigmoid form of the balanced loss, each foreground row weighted by a learnt weight of its class.

    Weights are ``sigmoid(a_c)``, scaled such that those of a batch's foreground rows have mean 1 over all processes;
    background rows weigh 1. Before each step ``a`` is renewed by Adam: the classifier takes a virtual step of plain
    gradient descent on the batch, and ``a`` goes down the gradient that the plain sigmoid loss of a class-balanced
    set of features has with respect to it. These features are remembered ones of earlier steps, one of each object:
    where everything before the classifier is frozen, a second pass over the data would give the same.

    State: ``a`` and Adam's averages, equal on all processes, and the features in ``memory``.
    """

    class_logit: Tensor
    """``[C]`` float64: a."""
    gradient_mean: Tensor
    gradient_square: Tensor
    meta_steps: Tensor

    reruns_classifier = True

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        meta_lr: Annotated[float, Field(ge=0, description="Adam's learning rate of the class weights.")] = 0.01,
        virtual_lr: Annotated[
            float, Field(gt=0, description="Learning rate of the virtual step; best that of the training.")
        ] = 0.02,
        meta_rows: Annotated[int, Field(ge=1, description="Remembered features of a class-balanced set.")] = 128,
        memory_size: Annotated[int, Field(ge=1, description="Features remembered of each class.")] = 8,
        prior_prob: PriorProb = 0.001,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats, form="sigmoid", prior_prob=prior_prob, loss_weight=loss_weight)
        self.meta_lr = meta_lr
        self.virtual_lr = virtual_lr
        self.meta_rows = meta_rows
        self.loss_weight = loss_weight
        for name in ("class_logit", "gradient_mean", "gradient_square"):
            self.register_buffer(name, torch.zeros(self.num_classes, dtype=torch.float64))
        self.register_buffer("meta_steps", torch.zeros((), dtype=torch.int64))
        self.memory = ClassRings(self.num_classes, memory_size, ("features",))

    def class_weights(self, counts: Tensor) -> Tensor:
        """``[C + 1]`` float64 weights of a row by its label; background 1.

        Args:
            counts: ``[C]`` foreground rows of each class in the batch.
        """
        share = self.class_logit.sigmoid()
        weights = share * counts.sum() / (counts * share).sum().clamp(min=torch.finfo(share.dtype).tiny)
        return F.pad(weights, (0, 1), value=1.0)

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ClassificationLoss.forward` for shapes. Draws nothing."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            row_weights = self.class_weights(self._count(labels)).to(logits.dtype)[labels]
            assert isinstance(self.base, SigmoidBCE)
            total = self.base.row_weighted(self._shifted(logits, labels), labels, row_weights)
            return {"cls": self.loss_weight * total / max(len(labels), 1)}

    @torch.no_grad()
    def observe(self, rows: Rows, *, draws: Draws | None = None) -> None:
        """Renew the class weights; see :meth:`ClassificationLoss.observe`.

        Draws: ``classes`` and ``entries``, ``[meta_rows]`` each, uniform in [0, 1): which features are recalled.
        """
        if not self.training:
            return
        with torch.autocast(rows.logits.device.type, enabled=False):
            if self.memory.filled.any():
                self._adam(self._meta_gradient(rows, *self._recall(rows, draws)))
            self._remember(rows)

    def _meta_gradient(self, rows: Rows, meta_features: Tensor, meta_labels: Tensor) -> Tensor:
        """``[C]`` float64: the gradient of the meta loss with respect to ``a``, over all processes.

        With the meta loss's gradient at the virtual weights held constant, it is the gradient of its product with
        ``-virtual_lr`` times the batch's gradient, which is linear in the class weights.
        """
        weights = {name: parameter.detach() for name, parameter in rows.classifier.named_parameters()}
        counts = self._count(rows.labels)
        features, hidden = _as_read(rows.features, rows), rows.logits == HIDDEN

        def logits_of(weights: Weights) -> Tensor:
            logits: Tensor = functional_call(rows.classifier, weights, (features,))
            return logits.masked_fill(hidden, HIDDEN)

        def meta_loss(weights: Weights) -> Tensor:
            logits = functional_call(rows.classifier, weights, (meta_features,))
            return _row_losses(logits, meta_labels, self.num_classes).mean()

        def gradient(class_weights: Tensor) -> Weights:
            return grad(lambda weights: self._loss(logits_of(weights), rows.labels, class_weights))(weights)

        class_weights = self.class_weights(counts)
        step = _mean_over_ranks(gradient(class_weights))
        virtual = {name: value - self.virtual_lr * step[name] for name, value in weights.items()}
        direction = _mean_over_ranks(grad(meta_loss)(virtual))
        slopes = grad(lambda class_weights: _dot(gradient(class_weights), direction))(class_weights)
        slopes = _mean_over_ranks({"slopes": slopes})["slopes"]
        return -self.virtual_lr * self._pull_back(slopes[: self.num_classes], counts)

    def _pull_back(self, slopes: Tensor, counts: Tensor) -> Tensor:
        """The gradient with respect to ``a`` of ``sum_c weight_c(a) slopes_c``."""
        share = self.class_logit.sigmoid()
        total = (counts * share).sum()
        scale = counts.sum() / torch.where(total > 0, total, 1.0)
        mean = (share * slopes).sum() / torch.where(total > 0, total, 1.0)
        return scale * share * (1 - share) * (slopes - counts * mean)

    def _adam(self, gradient: Tensor) -> None:
        self.meta_steps += 1
        self.gradient_mean.lerp_(gradient, 1 - _BETAS[0])
        self.gradient_square.lerp_(gradient.square(), 1 - _BETAS[1])
        steps = self.meta_steps.double()
        mean = self.gradient_mean / (1 - _BETAS[0] ** steps)
        square = self.gradient_square / (1 - _BETAS[1] ** steps)
        self.class_logit -= self.meta_lr * mean / (square.sqrt() + _ADAM_EPS)

    def _loss(self, logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
        """What :meth:`forward` gives, in operations that can be differentiated twice."""
        losses = _row_losses(self._shifted(logits, labels), labels, self.num_classes)
        total = (class_weights.to(logits.dtype)[labels] * losses).sum()
        return self.loss_weight * total / max(len(labels), 1)

    def _count(self, labels: Tensor) -> Tensor:
        """``[C]`` float64: foreground rows of each class, over all processes."""
        return sum_over_ranks(torch.bincount(labels, minlength=self.num_classes + 1)[:-1].to(self.class_logit))

    def _recall(self, rows: Rows, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """``[meta_rows, F]`` features, and labels spread evenly over the classes that there are features of."""
        filled = self.memory.filled
        known = filled.nonzero().squeeze(1)
        if draws is None:
            draws = {name: torch.rand(self.meta_rows, dtype=torch.float64) for name in ("classes", "entries")}
        labels = known[(draws["classes"] * len(known)).long()]
        slots = (draws["entries"] * filled[labels]).long()
        features = torch.stack(self.memory.take(labels.tolist(), slots.tolist(), "features"))
        return _as_read(features, rows), labels.to(rows.labels.device)

    def _remember(self, rows: Rows) -> None:
        """Store the first region of each object, on every process those of all."""
        chosen = ((rows.labels < self.num_classes) & ~rows.remembered).nonzero().squeeze(1)
        objects, index = rows.instance[chosen].unique(return_inverse=True)
        first = chosen.new_full((len(objects),), len(rows.labels)).scatter_reduce(0, index, chosen, "amin")
        features, labels = (rows_of_all_ranks(each[first]) for each in (rows.features, rows.labels))
        self.memory.add(labels, features=at_least_float32(features))


def _row_losses(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """``[N]``: binary cross-entropy of each row, summed over the classes."""
    targets = one_hot(labels, num_classes)
    return -F.logsigmoid(torch.where(targets, logits, -logits)).sum(dim=1)


def _mean_over_ranks(values: Weights) -> Weights:
    size = sum_over_ranks(torch.ones((), device=next(iter(values.values())).device))
    return {name: sum_over_ranks(value) / size for name, value in values.items()}


def _dot(left: Weights, right: Weights) -> Tensor:
    return torch.stack([(left[name] * value).sum() for name, value in right.items()]).sum()


def _as_read(features: Tensor, rows: Rows) -> Tensor:
    """Features as constants on the device of the classifier and in its dtype."""
    return features.detach().to(next(rows.classifier.parameters()))
