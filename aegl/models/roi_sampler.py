"""Which proposals the box and mask heads are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aegl.models.matcher import BETWEEN, match, sample
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
        number = targets.boxes.shape[1]
        real = torch.arange(number, device=proposals.device) < targets.num_objects[:, None]
        candidates = torch.cat([targets.boxes, proposals], dim=1)
        matched = match(
            candidates,
            targets.boxes,
            targets.num_objects,
            positive_iou=self.positive_iou,
            negative_iou=self.positive_iou,
            low_quality_iou=self.positive_iou,
        )
        matched = matched.where(torch.cat([real, valid], dim=1), BETWEEN)
        sampled = sample(matched, self.batch_per_image, self.positive_fraction)
        # Here the host must learn a number of the device's, how many rows the heads get, as in NMS, in pooling by level
        # and in choosing the foreground: padded rows would have to be masked in every loss and be computed for nothing.
        image, column = sampled.valid.nonzero().unbind(1)
        row = sampled.rows[image, column]
        positive = sampled.positive[image, column]
        assigned = matched[image, row].where(positive, 0)
        rois = torch.cat([image[:, None].to(candidates.dtype), candidates[image, row]], dim=1)
        labels = targets.labels[image, assigned] if number else torch.zeros_like(assigned)
        return SampledRegions(rois, labels.where(positive, self.num_classes), assigned)
