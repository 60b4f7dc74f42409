"""The box head: classifies regions and refines their boxes. Knows no method: its parts are given to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aegl.errors import ConfigError
from aegl.longtail.base import Rows
from aegl.longtail.classifiers import ClassifierKind, build_classifier, classifier_inputs, output_layers
from aegl.longtail.gradients import GradientAccount
from aegl.longtail.parts import Parts
from aegl.models.box_coder import BoxCoder
from aegl.models.roi_sampler import SampledRegions
from aegl.types import Targets


@dataclass(frozen=True)
class _Lesson:
    """What the head is trained on: ``R`` pooled regions and what it should say about them."""

    pooled: Tensor
    labels: Tensor
    offsets: Tensor
    """``[R, 4]``: regression targets, read for foreground only."""
    instance: Tensor
    remembered: Tensor
    verified: Tensor | None


class BoxHead(nn.Module):
    """Two shared fully connected layers, a classifier and a box regressor.

    Args:
        in_features: channels times squared side of the pooled regions.
        hidden: width of the shared layers.
        parts: of the long-tail method. The loss says how many logits there are, how they start, what they score.
        class_agnostic: one box regressor for all classes instead of one per class.
        classifier: kind of the classifier.
        temperature: scale of a cosine classifier.
        loss_weight: weight of the box regression loss.
        gradients: adds up what the classifier learns from; None, the default: nobody asks.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        parts: Parts,
        *,
        class_agnostic: bool = False,
        classifier: ClassifierKind = "linear",
        temperature: float = 20.0,
        loss_weight: float = 1.0,
        gradients: GradientAccount | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss = parts.loss
        self.auxiliary = parts.auxiliary
        self.calibrator = parts.calibrate
        self.selector = parts.selector
        self.memory = parts.memory
        self.gradients = gradients
        self.class_agnostic = class_agnostic
        self.loss_weight = loss_weight
        self.coder = BoxCoder(0.1, 0.2)
        self.fc1 = nn.Linear(in_features, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.classifier = build_classifier(
            classifier,
            hidden,
            loss.num_logits,
            temperature,
            column_groups=loss.column_groups,
            pooled_features=in_features,
        )
        self._check_inputs(classifier)
        self.regressor = nn.Linear(hidden, 4 if class_agnostic else 4 * loss.num_classes)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for output in output_layers(self.classifier):
            loss.init_classifier(output)
        nn.init.normal_(self.regressor.weight, std=0.001)
        nn.init.zeros_(self.regressor.bias)

    def _check_inputs(self, kind: ClassifierKind) -> None:
        inputs = classifier_inputs(self.classifier)
        for part in (self.loss, self.auxiliary):
            if part is not None and part.reruns_classifier and len(inputs) != 1:
                raise ConfigError(
                    f"box.classifier={kind}: reads {' and '.join(inputs)} features, and {type(part).__name__} trains "
                    "the classifier on features that it keeps, one vector each: choose another, e.g. linear"
                )

    @property
    def diagnostics(self) -> dict[str, Tensor]:
        """What the loss reports of its last forward pass; see :class:`aegl.longtail.base.ClassificationLoss`."""
        return self.loss.diagnostics

    def method_parts(self) -> list[nn.Module]:
        """The parts of the long-tail method and what watches them, as against the layers."""
        parts = (self.loss, self.auxiliary, self.calibrator, self.selector, self.memory, self.gradients)
        return [part for part in parts if part is not None]

    def step_begin(self, progress: float, epoch: float) -> None:
        """Told by the trainer before each step: the share of training that is done, in [0, 1), and finished epochs."""
        self.loss.step_begin(progress, epoch)
        if self.auxiliary is not None:
            self.auxiliary.step_begin(progress, epoch)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """``[R, channels, S, S]`` to ``[R, num_logits]`` logits and ``[R, 1 or C, 4]`` offsets."""
        logits, hidden, _ = self._classify(pooled)
        return logits, self.regressor(hidden).unflatten(1, (-1, 4))

    def scores(self, logits: Tensor) -> Tensor:
        """``[..., num_logits]`` logits to ``[..., C]`` scores in [0, 1], calibrated if there is a calibrator."""
        if self.calibrator is None:
            return self.loss.scores(logits)
        return self.calibrator(logits, self.loss.scores)

    def losses(
        self,
        regions: SampledRegions,
        targets: Targets,
        pool: Callable[[Tensor], Tensor],
        image_size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """The terms of the method, and ``box``: L1 over foreground, divided by the number of regions trained on.

        Args:
            regions: sampled regions.
            targets: ground truth.
            pool: ``[R, 5]`` rois to ``[R, channels, S, S]`` features.
            image_size: height and width of the network input.
        """
        lesson = self._remembering(self._lesson(regions, targets, pool), targets, pool, image_size)
        logits, hidden, features = self._classify(lesson.pooled)
        if lesson.verified is not None:
            logits = self.loss.hide_unverified(logits, lesson.labels, lesson.verified)
        rows = Rows(logits, lesson.labels, features, self.classifier, lesson.instance, lesson.remembered)
        self.loss.observe(rows)
        terms = dict(self.loss(logits, lesson.labels))
        if self.auxiliary is not None:
            terms |= self.auxiliary(rows, self.loss)
        if self.gradients is not None:
            total = torch.stack(list(terms.values())).sum()
            (gradient,) = torch.autograd.grad(total, logits, retain_graph=True)
            self.gradients.add(self.loss.class_logits(gradient), lesson.labels)
        terms["box"] = self._box_loss(hidden, lesson)
        return terms

    def _classify(self, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, what the regressor reads, and the (first) features that the classifier read."""
        flat = pooled.flatten(1)
        first = F.relu(self.fc1(flat), inplace=True)
        hidden = F.relu(self.fc2(first), inplace=True)
        features = {"pooled": flat, "first": first, "hidden": hidden}
        inputs = [features[name] for name in classifier_inputs(self.classifier)]
        return self.classifier(*inputs), hidden, inputs[0]

    def _lesson(self, regions: SampledRegions, targets: Targets, pool: Callable[[Tensor], Tensor]) -> _Lesson:
        image = regions.rois[:, 0].long()
        if self.selector is not None:
            keep = self.selector.rows(regions.labels, image, targets.focus)
            regions, image = regions.take(keep), image[keep]
        foreground = regions.labels < self.loss.num_classes
        wanted = targets.boxes[image, regions.matched] if targets.boxes.shape[1] else regions.rois[:, 1:]
        instance = image * targets.boxes.shape[1] + regions.matched
        return _Lesson(
            pool(regions.rois),
            regions.labels,
            self.coder.encode(regions.rois[:, 1:], wanted),
            torch.where(foreground, instance, -1),
            torch.zeros_like(foreground),
            None if targets.verified is None else targets.verified[image],
        )

    def _box_loss(self, hidden: Tensor, lesson: _Lesson) -> Tensor:
        """Only foreground is regressed, and each region by its own class's regressor: one in a thousand outputs."""
        foreground = (lesson.labels < self.loss.num_classes).nonzero().squeeze(1)
        column = torch.zeros_like(foreground) if self.class_agnostic else lesson.labels[foreground]
        weight, bias = (each.unflatten(0, (-1, 4))[column] for each in (self.regressor.weight, self.regressor.bias))
        deltas = torch.einsum("rh,rkh->rk", hidden[foreground], weight) + bias
        distance = (deltas.float() - lesson.offsets[foreground]).abs().sum()
        return self.loss_weight * distance / max(len(lesson.labels), 1)

    def _remembering(
        self, lesson: _Lesson, targets: Targets, pool: Callable[[Tensor], Tensor], image_size: tuple[int, int]
    ) -> _Lesson:
        """The lesson with what the memory adds to it, after the memory has seen the batch's ground truth."""
        if self.memory is None:
            return lesson
        self._memorise(targets, pool, image_size)
        pooled, labels, offsets = self.memory.recall(self.loss)
        new = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        verified = None
        if lesson.verified is not None:
            verified = torch.cat([lesson.verified, new[:, None].expand(-1, self.loss.num_classes)])
        return _Lesson(
            torch.cat([lesson.pooled, pooled.to(lesson.pooled.dtype)]),
            torch.cat([lesson.labels, labels]),
            torch.cat([lesson.offsets, offsets]),
            torch.cat([lesson.instance, torch.full_like(labels, -1)]),
            torch.cat([lesson.remembered, new]),
            verified,
        )

    @torch.no_grad()
    def _memorise(self, targets: Targets, pool: Callable[[Tensor], Tensor], image_size: tuple[int, int]) -> None:
        assert self.memory is not None
        image, row = (targets.labels >= 0).nonzero().unbind(1)
        boxes = targets.boxes[image, row]
        probes = self.memory.probes(boxes, image_size)
        each = probes.shape[1]
        labels = targets.labels[image, row].repeat_interleave(each)
        places = F.pad(probes, (1, 0))
        places[..., 0] = image[:, None]
        places = places.flatten(0, 1)
        offsets = self.coder.encode(places[:, 1:], boxes.repeat_interleave(each, dim=0))
        self.memory.store(pool(places), labels, offsets)
