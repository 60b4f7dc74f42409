"""Which ground truth an anchor or a proposal belongs to, and which of them are trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from aegl.models.boxes import pairwise_iou

BELOW = -1
"""Matched to nothing: a negative."""
BETWEEN = -2
"""Neither positive nor negative: not trained on."""


def match(
    candidates: Tensor,
    boxes: Tensor,
    num_boxes: Tensor,
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_iou: float | None = None,
) -> Tensor:
    """Assign candidates of one image to its ground truth by overlap.

    Args:
        candidates: ``[N, 4]``.
        boxes: ``[G, 4]``, padded.
        num_boxes: scalar, how many of ``boxes`` are real.
        positive_iou: overlap from which a candidate is positive.
        negative_iou: overlap below which it is negative.
        low_quality_iou: if given, the candidates that overlap a ground truth most become its positives too, from this
            overlap on (Faster R-CNN's low-quality matches).

    Returns:
        ``[N]`` int64: row of the ground truth, :data:`BELOW` or :data:`BETWEEN`.
    """
    if boxes.shape[0] == 0 or candidates.shape[0] == 0:
        return candidates.new_full((candidates.shape[0],), BELOW, dtype=torch.int64)
    real = torch.arange(boxes.shape[0], device=boxes.device) < num_boxes
    iou = torch.where(real, pairwise_iou(candidates, boxes), -1.0)
    best, assigned = iou.max(dim=1)
    result = torch.where(best >= positive_iou, assigned, BETWEEN)
    result = torch.where(best < negative_iou, BELOW, result)
    if low_quality_iou is not None:
        best_of_box = iou.max(dim=0).values
        is_best = (iou == best_of_box) & (best_of_box >= low_quality_iou)
        # Where a candidate is the best of several boxes, the last one wins, as in the reference recipes.
        last = boxes.shape[0] - 1 - is_best.flip(1).int().argmax(dim=1)
        result = torch.where(is_best.any(dim=1), last, result)
    return result


def sample(matched: Tensor, number: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Draw positives and negatives at random (torch's global generator).

    Args:
        matched: ``[N]`` result of :func:`match`; :data:`BETWEEN` is never drawn.
        number: how many to draw; fewer if there are not enough.
        positive_fraction: largest share of positives.

    Returns:
        ``[P]`` int64 indices of positives and ``[Q]`` of negatives.
    """
    positives = _choose(matched >= 0, int(number * positive_fraction))
    negatives = _choose(matched == BELOW, number - len(positives))
    return positives, negatives


def _choose(candidates: Tensor, number: int) -> Tensor:
    found = candidates.nonzero().squeeze(1)
    if len(found) <= number:
        return found
    return found[torch.randperm(len(found), device=found.device)[:number]]
