"""Which proposals the box and mask heads are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aegl.models.matcher import match, sample
from aegl.types import Targets


@dataclass(frozen=True)
class SampledRegions:
    """``R`` regions of a batch, the foreground of each image before its background.

    Args:
        rois: ``[R, 5]`` float32, image index and ``x1 y1 x2 y2``.
        labels: ``[R]`` int64, ``0..C-1``, background ``C``.
        matched: ``[R]`` int64 row of the region's ground truth in its image; 0 for background.
    """

    rois: Tensor
    labels: Tensor
    matched: Tensor

    def take(self, rows: Tensor) -> SampledRegions:
        """The regions of these indices."""
        return SampledRegions(self.rois[rows], self.labels[rows], self.matched[rows])


class RegionSampler:
    """Draws a fixed number of proposals per image, with a largest share of foreground.

    Args:
        num_classes: ``C``.
        batch_per_image: proposals drawn per image.
        positive_fraction: largest share of foreground.
        positive_iou: overlap from which a proposal is foreground; below it is background.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        batch_per_image: int = 512,
        positive_fraction: float = 0.25,
        positive_iou: float = 0.5,
    ) -> None:
        self.num_classes = num_classes
        self.batch_per_image = batch_per_image
        self.positive_fraction = positive_fraction
        self.positive_iou = positive_iou

    @torch.no_grad()
    def __call__(self, proposals: Tensor, valid: Tensor, targets: Targets) -> SampledRegions:
        """Sample; the ground truth itself joins the proposals.

        Args:
            proposals: ``[B, P, 4]``.
            valid: ``[B, P]`` bool.
            targets: ground truth.
        """
        parts = [self._sample(i, proposals[i][valid[i]], targets) for i in range(proposals.shape[0])]
        rois, labels, matched = (torch.cat(column) for column in zip(*parts, strict=True))
        return SampledRegions(rois, labels, matched)

    def _sample(self, image: int, proposals: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        number = targets.num_objects[image]
        real = torch.arange(targets.boxes.shape[1], device=number.device) < number
        candidates = torch.cat([targets.boxes[image][real], proposals])
        matched = match(
            candidates,
            targets.boxes[image],
            number,
            positive_iou=self.positive_iou,
            negative_iou=self.positive_iou,
            low_quality_iou=self.positive_iou,
        )
        positives, negatives = sample(matched, self.batch_per_image, self.positive_fraction)
        assigned = matched[positives]
        background = torch.full_like(negatives, self.num_classes)
        boxes = candidates[torch.cat([positives, negatives])]
        rois = torch.cat([boxes.new_full((len(boxes), 1), image), boxes], dim=1)
        labels = torch.cat([targets.labels[image][assigned], background])
        return rois, labels, torch.cat([assigned, torch.zeros_like(negatives)])
