"""From scores and offsets to final boxes: the one selection that evaluation, prediction and export share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aegl.models.box_coder import BoxCoder
from aegl.models.boxes import area, clip
from aegl.models.ops import nms_padded
from aegl.models.rpn import PAD_SCORE


@dataclass
class PostprocessOptions:
    """Operating point of the detector.

    Args:
        conf: detections score above this.
        iou: overlap from which the weaker of two detections of a class is dropped.
        max_det: detections per image.
        nms_candidates: best (region, class) pairs that enter NMS. The result is exact whenever ``complete`` is true.
    """

    conf: float = 1e-4
    iou: float = 0.5
    max_det: int = 300
    nms_candidates: int = 5000


@dataclass(frozen=True)
class Selection:
    """Boxes that are kept, padded to ``K = max_det``; see :class:`aegl.types.Detections` for the fields."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    num_detections: Tensor
    complete: Tensor
    valid: Tensor
    """``[B, K]`` bool."""


def select(
    scores: Tensor,
    deltas: Tensor,
    proposals: Tensor,
    valid: Tensor,
    image_size: tuple[int, int],
    coder: BoxCoder,
    options: PostprocessOptions,
) -> Selection:
    """Threshold, decode only the best candidates, suppress within classes, keep the best.

    Args:
        scores: ``[B, P, C]`` in [0, 1].
        deltas: ``[B, P, 1 or C, 4]`` offsets.
        proposals: ``[B, P, 4]``.
        valid: ``[B, P]`` bool, which proposals are real.
        image_size: height and width of the network input.
        coder: decodes the offsets.
        options: operating point.
    """
    _, regions, classes = scores.shape
    # float32 whatever the autocast: half precision ties scores that decide what is kept.
    scores = scores.float()
    counts = (scores > options.conf) & valid[..., None]
    flat = torch.where(counts, scores, PAD_SCORE).flatten(1)
    number = min(options.nms_candidates, regions * classes)
    # topk() gives equal scores in any order; NMS keeps the first of them.
    candidate = flat.topk(number, dim=1).indices.sort(dim=1).values
    candidate_scores = flat.gather(1, candidate)
    region = torch.div(candidate, classes, rounding_mode="floor")
    label = candidate - region * classes

    reference = proposals.gather(1, region[..., None].expand(-1, -1, 4))
    column = torch.zeros_like(label) if deltas.shape[2] == 1 else label
    pair = region * deltas.shape[2] + column
    offsets = deltas.flatten(1, 2).gather(1, pair[..., None].expand(-1, -1, 4))
    boxes = clip(coder.decode(reference, offsets), *image_size)
    candidate_scores = torch.where(area(boxes) > 0, candidate_scores, PAD_SCORE)

    kept, kept_valid = nms_padded(boxes, candidate_scores, label, options.iou, options.max_det)
    num_detections = kept_valid.sum(1)
    # Greedy NMS of the best candidates is a prefix of NMS of all: full, or nothing left out, means nothing changed.
    complete = (num_detections >= options.max_det) | (counts.flatten(1).sum(1) <= number)
    return Selection(
        boxes=boxes.gather(1, kept[..., None].expand(-1, -1, 4)).where(kept_valid[..., None], 0.0),
        scores=torch.where(kept_valid, candidate_scores.gather(1, kept), 0.0),
        labels=torch.where(kept_valid, label.gather(1, kept), -1),
        num_detections=num_detections,
        complete=complete,
        valid=kept_valid,
    )
