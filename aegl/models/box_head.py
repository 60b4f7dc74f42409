"""The box head: classifies regions and refines their boxes. Knows no method; the loss object owns the logits."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aegl.longtail.base import ClassificationLoss
from aegl.longtail.classifiers import build_classifier
from aegl.models.box_coder import BoxCoder
from aegl.models.roi_sampler import SampledRegions
from aegl.types import Targets


class BoxHead(nn.Module):
    """Two shared fully connected layers, a classifier and a box regressor.

    Args:
        in_features: channels times squared side of the pooled regions.
        hidden: width of the shared layers.
        loss: the classification loss; says how many logits there are, how they start, what they score.
        class_agnostic: one box regressor for all classes instead of one per class.
        classifier: kind of the classifier layer.
        temperature: scale of a cosine classifier.
        loss_weight: weight of the box regression loss.
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        loss: ClassificationLoss,
        *,
        class_agnostic: bool = False,
        classifier: Literal["linear", "cosine"] = "linear",
        temperature: float = 20.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.class_agnostic = class_agnostic
        self.loss_weight = loss_weight
        self.coder = BoxCoder((0.1, 0.1, 0.2, 0.2))
        self.fc1 = nn.Linear(in_features, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.classifier = build_classifier(classifier, hidden, loss.num_logits, temperature)
        self.regressor = nn.Linear(hidden, 4 if class_agnostic else 4 * loss.num_classes)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        loss.init_classifier(self.classifier)
        nn.init.normal_(self.regressor.weight, std=0.001)
        nn.init.zeros_(self.regressor.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """``[R, channels, S, S]`` to ``[R, num_logits]`` logits and ``[R, 1 or C, 4]`` offsets."""
        hidden = F.relu(self.fc2(F.relu(self.fc1(pooled.flatten(1)))))
        return self.classifier(hidden), self.regressor(hidden).unflatten(1, (-1, 4))

    def losses(self, logits: Tensor, deltas: Tensor, regions: SampledRegions, targets: Targets) -> dict[str, Tensor]:
        """The loss object's own terms and ``box``: L1 over foreground, divided by the number of sampled regions."""
        if targets.verified is not None:
            verified = targets.verified[regions.rois[:, 0].long()]
            logits = self.loss.hide_unverified(logits, regions.labels, verified)
        terms = dict(self.loss(logits, regions.labels))
        foreground = (regions.labels < self.loss.num_classes).nonzero().squeeze(1)
        image = regions.rois[foreground, 0].long()
        wanted = self.coder.encode(regions.rois[foreground, 1:], targets.boxes[image, regions.matched[foreground]])
        column = torch.zeros_like(foreground) if self.class_agnostic else regions.labels[foreground]
        distance = (deltas[foreground, column].float() - wanted).abs().sum()
        terms["box"] = self.loss_weight * distance / max(len(regions.labels), 1)
        return terms
