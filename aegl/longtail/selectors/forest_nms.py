"""NMS re-sampling: more proposals on rare objects (Forest R-CNN, Wu et al., ACM MM 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torchvision.ops import box_iou

from aegl.errors import ConfigError
from aegl.longtail.base import Candidates, RegionSelector
from aegl.longtail.statistics import ClassStatistics


class ForestNms(RegionSelector):
    """Suppresses the proposals of training less where they lie on a rare object.

    A proposal lies on the objects that it overlaps by ``overlap`` or more. *discrete*: plain suppression is run once
    for each frequency band, at its IoU; of a run, the proposals on objects of its band are kept, and of the last one
    those that are on no object of the other bands. *linear*: one run, in which the proposal that is kept decides by
    which overlap it removes others: ``highest`` on objects of the rarest class, down to ``lowest`` on those of the most
    frequent one, evenly by rank; the last of ``thresholds`` where it lies on nothing.
    """

    band: Tensor
    """``[C]`` int64: run that takes care of each class."""
    class_threshold: Tensor
    """``[C + 1]`` float32: thresholds of the linear rule, and that of proposals on nothing."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        rule: Annotated[
            Literal["discrete", "linear"], Field(description="A threshold per frequency band, or one per class.")
        ] = "discrete",
        thresholds: Annotated[
            list[float],
            Field(description="IoU of suppression on objects of each band, rarest first; the last for all else."),
        ] = [0.9, 0.8, 0.7],  # noqa: B006  # read only
        lowest: Annotated[
            float, Field(gt=0, le=1, description="Threshold of the most frequent class (linear).")
        ] = 0.65,
        highest: Annotated[float, Field(gt=0, le=1, description="Threshold of the rarest class (linear).")] = 0.95,
        overlap: Annotated[float, Field(gt=0, le=1, description="IoU from which a proposal lies on an object.")] = 0.3,
    ) -> None:
        super().__init__(stats)
        if not thresholds or not all(0 < iou <= 1 for iou in thresholds):
            raise ConfigError(f"selector.thresholds={thresholds}: give one IoU or more, each above 0 and up to 1")
        self.rule = rule
        self.thresholds = tuple(thresholds)
        self.overlap = overlap
        counts = torch.as_tensor(stats.image_counts)
        rank = counts.unique(return_inverse=True)[1].double()
        linear = highest - (highest - lowest) * rank / rank.max().clamp(min=1)
        last = linear.new_tensor([thresholds[-1]])
        # Follow from the statistics: no part of a checkpoint.
        band = torch.as_tensor(stats.class_band).clamp(max=len(thresholds) - 1)
        self.register_buffer("band", band, persistent=False)
        self.register_buffer("class_threshold", torch.cat([linear, last]).float(), persistent=False)

    def survivors(self, candidates: Candidates, plain: Callable[[float], Tensor]) -> Tensor:
        """See :meth:`RegionSelector.survivors`."""
        overlaps = torch.stack([_overlaps(*pair) for pair in zip(candidates.boxes, candidates.truth, strict=True)])
        overlaps = overlaps.masked_fill((candidates.labels < 0)[:, None], 0.0)
        if self.rule == "discrete":
            return self._discrete(overlaps >= self.overlap, candidates.labels, plain)
        thresholds = self._own_thresholds(overlaps, candidates.labels)
        each = zip(candidates.boxes, candidates.scores, candidates.levels, thresholds, strict=True)
        return torch.stack([_suppress(*image) for image in each])

    def _discrete(self, lies_on: Tensor, labels: Tensor, plain: Callable[[float], Tensor]) -> Tensor:
        band = self.band[labels.clamp(min=0)]
        kept = torch.zeros(lies_on.shape[:-1], dtype=torch.bool, device=lies_on.device)
        elsewhere = torch.ones_like(kept)
        for number, iou in enumerate(self.thresholds[:-1]):
            here = (lies_on & (band == number)[:, None]).any(-1)
            elsewhere = elsewhere & ~here
            if here.any():
                kept = kept | (here & plain(iou))
        return kept | (elsewhere & plain(self.thresholds[-1]))

    def _own_thresholds(self, overlaps: Tensor, labels: Tensor) -> Tensor:
        """``[B, N]``: threshold of each proposal, by the object that it overlaps most."""
        if not overlaps.shape[-1]:
            return self.class_threshold[-1].expand(overlaps.shape[:-1])
        most, where = overlaps.max(dim=-1)
        label = labels.gather(1, where).where(most >= self.overlap, self.num_classes)
        return self.class_threshold[label]


def greedy_nms(boxes: Tensor, scores: Tensor, thresholds: Tensor) -> Tensor:
    """Non-maximum suppression in which every kept box removes by a threshold of its own.

    Args:
        boxes: ``[N, 4]`` ``x1 y1 x2 y2``.
        scores: ``[N]``; of equal ones the first counts as higher.
        thresholds: ``[N]``: a kept box removes those of lower score that it overlaps by more than this.

    Returns:
        ``[N]`` bool, true for boxes that are kept.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes, thresholds = boxes[order], thresholds[order]
    removes = (box_iou(boxes, boxes) > thresholds[:, None]).triu(diagonal=1)
    kept = torch.ones_like(scores, dtype=torch.bool)
    # Each pass settles at least one more box from the top, so this ends with the answer of going through them one by
    # one, after as many passes as the longest chain of removals has links.
    while True:
        still = ~(removes & kept[:, None]).any(dim=0)
        if torch.equal(still, kept):
            return torch.empty_like(kept).index_put_((order,), kept)
        kept = still


def _suppress(boxes: Tensor, scores: Tensor, levels: Tensor, thresholds: Tensor) -> Tensor:
    """``[N]`` bool: :func:`greedy_nms` of one image's candidates, level by level."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for level in levels.unique():
        rows = ((levels == level) & (scores >= 0)).nonzero().squeeze(1)
        kept[rows] = greedy_nms(boxes[rows], scores[rows], thresholds[rows])
    return kept


def _overlaps(boxes: Tensor, truth: Tensor) -> Tensor:
    """``[N, G]`` IoU, 0 where both boxes are empty."""
    return box_iou(boxes, truth).nan_to_num(0.0)
