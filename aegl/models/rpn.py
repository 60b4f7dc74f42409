"""Region proposal network (Ren et al., 2015) with outputs of fixed size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aegl.longtail.base import Candidates
from aegl.models.anchors import AnchorGenerator
from aegl.models.box_coder import BoxCoder
from aegl.models.boxes import area, clip
from aegl.models.matcher import match, sample
from aegl.models.ops import nms_padded
from aegl.models.sparse_conv import convolve_at
from aegl.types import Targets

LOW_QUALITY_IOU = 0.3
"""A ground truth without a good anchor takes its best ones from this overlap on."""
PAD_SCORE = -1.0
"""Score of padding rows; real scores lie in [0, 1]."""

Survivors = Callable[[Candidates, Callable[[float], Tensor]], Tensor | None]
"""See :meth:`aegl.longtail.base.RegionSelector.survivors`."""


@dataclass(frozen=True)
class RpnOptions:
    """See :class:`aegl.config.sections.RpnSection` for what each means."""

    batch_per_image: int = 256
    positive_fraction: float = 0.5
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    pre_nms_train: int = 2000
    pre_nms_test: int = 1000
    post_nms_train: int = 1000
    post_nms_test: int = 1000
    nms_iou: float = 0.7


class RegionProposals(nn.Module):
    """Scores and refines anchors.

    Args:
        channels: channels of the pyramid.
        anchors: anchors of its levels.
        options: sampling and filtering.
        survivors: decides which proposals outlive suppression in training.
    """

    def __init__(
        self, channels: int, anchors: AnchorGenerator, options: RpnOptions, survivors: Survivors | None = None
    ) -> None:
        super().__init__()
        self._survivors = survivors
        self.anchors = anchors
        self.options = options
        self.coder = BoxCoder(1.0, 1.0)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors.num_ratios, 1)
        self.deltas = nn.Conv2d(channels, 4 * anchors.num_ratios, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(
        self, features: Sequence[Tensor], image_size: tuple[int, int], targets: Targets | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Proposals, and in training the losses.

        Args:
            features: one ``[B, channels, Hi, Wi]`` map per level.
            image_size: height and width of the network input.
            targets: ground truth; given in training.

        Returns:
            ``[B, P, 4]`` float32 proposals by falling score (zero where padded), ``[B, P]`` bool which of them are
            real, and the losses ``rpn_cls`` and ``rpn_box`` (empty without targets). No gradient flows through boxes.
        """
        anchors = self.anchors(features)
        # The losses need a few anchors, the proposals all of them but no gradient: the few are computed twice. They
        # come first, as older versions of PyTorch cache casts made without gradient (autocast) and lose it later.
        losses = {} if targets is None else self._losses(features, torch.cat(anchors), targets)
        with torch.no_grad():
            boxes, valid = self._propose(*self._predict(features), anchors, image_size, targets)
        return boxes, valid, losses

    def _predict(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level ``[B, Ni]`` logits and ``[B, Ni, 4]`` offsets, in the anchors' order."""
        logits, deltas = [], []
        for feature in features:
            hidden = F.relu(self.conv(feature), inplace=True)
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4)))
        return logits, deltas

    def _predict_at(self, features: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 ``[B, K]`` logits and ``[B, K, 4]`` offsets of the anchors ``[B, K]``, counted over all levels."""
        ratios = self.anchors.num_ratios
        hidden = F.relu(convolve_at(features, rows // ratios, self.conv))  # a view: not in place
        logits = F.linear(hidden, self.objectness.weight.flatten(1), self.objectness.bias)
        deltas = F.linear(hidden, self.deltas.weight.flatten(1), self.deltas.bias).unflatten(2, (ratios, 4))
        ratio = (rows % ratios)[..., None]
        chosen = deltas.gather(2, ratio[..., None].expand(-1, -1, 1, 4))
        return logits.gather(2, ratio)[..., 0].float(), chosen[:, :, 0].float()

    def _propose(
        self,
        logits: list[Tensor],
        deltas: list[Tensor],
        anchors: list[Tensor],
        image_size: tuple[int, int],
        targets: Targets | None,
    ) -> tuple[Tensor, Tensor]:
        options = self.options
        pre_nms = options.pre_nms_train if self.training else options.pre_nms_test
        post_nms = options.post_nms_train if self.training else options.post_nms_test
        boxes, scores, levels = [], [], []
        for level, (logit, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
            # A constant number per level, whatever the image's size: small levels are filled up.
            score = F.pad(_rank_score(logit), (0, pre_nms), value=PAD_SCORE)
            # topk() gives equal scores in any order; NMS keeps the first of them.
            index = score.topk(pre_nms, dim=1).indices.sort(dim=1).values
            score, index = score.gather(1, index), index.clamp(max=anchor.shape[0] - 1)
            delta = delta.gather(1, index[..., None].expand(-1, -1, 4))
            box = clip(self.coder.decode(anchor[index], delta), *image_size)
            boxes.append(box)
            scores.append(torch.where(area(box) > 0, score, PAD_SCORE))
            levels.append(torch.full_like(index, level))
        found = (torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels, 1))
        survived = None
        if targets is not None and self._survivors is not None:
            candidates = Candidates(*found, targets.boxes, targets.labels)
            survived = self._survivors(candidates, partial(_plain_survivors, *found))
        if survived is None:
            index, valid = nms_padded(*found, options.nms_iou, post_nms)
        else:
            ranked = found[1].where(survived, PAD_SCORE).sort(dim=1, descending=True, stable=True)
            index, valid = ranked.indices[:, :post_nms], ranked.values[:, :post_nms] >= 0
        kept = found[0].gather(1, index[..., None].expand(-1, -1, 4))
        return kept.where(valid[..., None], 0.0), valid

    def _losses(self, features: Sequence[Tensor], anchors: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Both terms are divided by the number of sampled anchors of the batch."""
        with torch.no_grad():
            matched = match(
                anchors,
                targets.boxes,
                targets.num_objects,
                positive_iou=self.options.positive_iou,
                negative_iou=self.options.negative_iou,
                low_quality_iou=LOW_QUALITY_IOU,
            )
            rows, valid, positive = sample(matched, self.options.batch_per_image, self.options.positive_fraction)
        number = valid.sum().clamp(min=1)
        logits, deltas = self._predict_at(features, rows)
        terms = F.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")
        classification = terms.where(valid, 0.0).sum() / number
        if not targets.boxes.shape[1]:
            return {"rpn_cls": classification, "rpn_box": 0.0 * deltas.sum()}
        assigned = matched.gather(1, rows).clamp(min=0)
        boxes = targets.boxes.gather(1, assigned[..., None].expand(-1, -1, 4))
        wanted = self.coder.encode(anchors[rows], boxes)
        distance = (deltas - wanted).abs().where(positive[..., None], 0.0).sum()
        return {"rpn_cls": classification, "rpn_box": distance / number}


def _plain_survivors(boxes: Tensor, scores: Tensor, levels: Tensor, iou: float) -> Tensor:
    """``[B, N]`` bool, which boxes outlive plain suppression; see :func:`aegl.models.ops.nms_padded`."""
    number = scores.shape[1]
    index, valid = nms_padded(boxes, scores, levels, iou, number)
    survived = torch.zeros(len(scores), number + 1, dtype=torch.bool, device=scores.device)
    return survived.scatter_(1, index.where(valid, number), True)[:, :number]


def _rank_score(logits: Tensor) -> Tensor:
    """Objectness logits to float32 in [0, 1], in the same order.

    Not a sigmoid, which would make the surest proposals of a well-trained network all equal.
    """
    logits = logits.float()
    return 0.5 + 0.5 * logits / (1 + logits.abs())
