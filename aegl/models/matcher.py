"""Which candidates belong to which ground truth, and which of them are trained on: all images at once.

Nothing here waits for the device: numbers that depend on the data are masks over rows of a fixed number.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aegl.models.boxes import pairwise_iou

BELOW = -1
"""Matched to nothing: a negative."""
BETWEEN = -2
"""Neither positive nor negative: not trained on."""
_PAIRS = 1 << 26
"""Overlaps computed at once (about 1 GB while it lasts); images are matched in groups that stay below."""


def match(
    candidates: Tensor,
    boxes: Tensor,
    num_boxes: Tensor,
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_iou: float | None = None,
) -> Tensor:
    """Assign candidates to the ground truth of their image by overlap.

    Args:
        candidates: ``[B, N, 4]``, or ``[N, 4]`` for the same ones in every image.
        boxes: ``[B, G, 4]``, padded.
        num_boxes: ``[B]`` how many of ``boxes`` are real.
        positive_iou: overlap from which a candidate is positive.
        negative_iou: overlap below which it is negative.
        low_quality_iou: if given, the candidates that overlap a ground truth most become its positives too, from this
            overlap on (Faster R-CNN's low-quality matches).

    Returns:
        ``[B, N]`` int64: row of the ground truth, :data:`BELOW` or :data:`BETWEEN`.
    """
    images, most = boxes.shape[:2]
    number = candidates.shape[-2]
    if most == 0 or number == 0:
        return candidates.new_full((images, number), BELOW, dtype=torch.int64)
    group = max(1, _PAIRS // (number * most))
    thresholds = positive_iou, negative_iou, low_quality_iou
    parts = [
        _match(
            candidates if candidates.ndim == 2 else candidates[start : start + group],
            boxes[start : start + group],
            num_boxes[start : start + group],
            *thresholds,
        )
        for start in range(0, images, group)
    ]
    return torch.cat(parts)


def _match(
    candidates: Tensor,
    boxes: Tensor,
    num_boxes: Tensor,
    positive_iou: float,
    negative_iou: float,
    low_quality_iou: float | None,
) -> Tensor:
    most = boxes.shape[1]
    real = torch.arange(most, device=boxes.device) < num_boxes[:, None]
    iou = torch.where(real[:, None], pairwise_iou(candidates, boxes), -1.0)
    best, assigned = iou.max(dim=2)
    result = torch.where(best >= positive_iou, assigned, BETWEEN)
    result = torch.where(best < negative_iou, BELOW, result)
    if low_quality_iou is not None:
        best_of_box = iou.amax(dim=1, keepdim=True)
        is_best = (iou == best_of_box) & (best_of_box >= low_quality_iou)
        # Where a candidate is the best of several boxes, the last one wins, as in the reference recipes.
        last = most - 1 - is_best.flip(2).int().argmax(dim=2)
        result = torch.where(is_best.any(dim=2), last, result)
    return result


class Sampled(NamedTuple):
    """Candidates drawn from each image, positives before negatives.

    Args:
        rows: ``[B, S]`` int64 into the candidates; 0 where nothing is drawn.
        valid: ``[B, S]`` bool, where something is.
        positive: ``[B, S]`` bool, which of those are positives.
    """

    rows: Tensor
    valid: Tensor
    positive: Tensor


def sample(matched: Tensor, number: int, positive_fraction: float) -> Sampled:
    """Draw positives and negatives of each image at random (torch's global generator).

    Args:
        matched: ``[B, N]`` result of :func:`match`; :data:`BETWEEN` is never drawn.
        number: how many to draw in an image; fewer if there are not enough.
        positive_fraction: largest share of positives.
    """
    draws = torch.rand(matched.shape, device=matched.device)
    positives, is_positive = _choose(draws, matched >= 0, int(number * positive_fraction))
    negatives, is_negative = _choose(draws, matched == BELOW, number)
    # What the positives leave over is filled with negatives.
    rank = torch.arange(negatives.shape[1], device=matched.device)
    is_negative &= rank < number - is_positive.sum(dim=1, keepdim=True)
    return Sampled(
        torch.cat([positives, negatives], dim=1),
        torch.cat([is_positive, is_negative], dim=1),
        torch.cat([is_positive, torch.zeros_like(is_negative)], dim=1),
    )


def _choose(draws: Tensor, candidates: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """``[B, K]`` the candidates of the largest draws, at most ``number``, and which of the ``K`` there are."""
    top = draws.where(candidates, -1.0).topk(min(number, draws.shape[1]), dim=1)
    there = top.values >= 0
    return top.indices.where(there, 0), there
