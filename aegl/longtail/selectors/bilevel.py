"""SimCal's choice of regions: of the class that an image was drawn for, and as many of the background."""

from __future__ import annotations

import torch
from torch import Tensor

from aegl.longtail.base import RegionSelector


class Bilevel(RegionSelector):
    """The region half of bi-level sampling (Wang et al., ECCV 2020); ``sampler=class_balanced`` is the image half.

    Of each image, the foreground regions of the class that it was drawn for are kept, and as many of its background
    regions, drawn at random from torch's global generator (all of them if there are fewer). Foreground of other classes
    is left out.
    """

    needs_focus = True

    def rows(self, labels: Tensor, images: Tensor, focus: Tensor | None) -> Tensor:
        """See :meth:`RegionSelector.rows`; in rising order."""
        if focus is None:
            raise ValueError("bi-level sampling needs the class for which each image was drawn")
        wanted = labels == focus[images]
        background = (labels == self.num_classes).nonzero().squeeze(1)
        shuffled = background[torch.randperm(len(background), device=labels.device)]
        kept = [wanted.nonzero().squeeze(1)]
        for image in range(len(focus)):
            number = int((wanted & (images == image)).sum())
            kept.append(shuffled[images[shuffled] == image][:number])
        return torch.cat(kept).sort().values
