"""The mask head: computes only the mask of the class that is needed, never all C of them."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aegl.models.roi_sampler import SampledRegions
from aegl.types import Targets


class MaskHead(nn.Module):
    """Convolutions, a deconvolution and a 1x1 predictor.

    Args:
        in_channels: channels of the pooled regions.
        channels: channels of the convolutions.
        convs: number of 3x3 convolutions.
        num_classes: ``C``.
        class_agnostic: one mask for all classes instead of one per class.
        loss_weight: weight of the mask loss.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        convs: int,
        num_classes: int,
        *,
        class_agnostic: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic
        self.loss_weight = loss_weight
        widths = [in_channels] + [channels] * convs
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.deconv = nn.ConvTranspose2d(widths[-1], channels, 2, stride=2)
        self.predictor = nn.Conv2d(channels, 1 if class_agnostic else num_classes, 1)
        for layer in [*self.convs, self.deconv, self.predictor]:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """Mask logits of one class per region.

        Args:
            pooled: ``[R, in_channels, S, S]``.
            labels: ``[R]`` int64 in ``0..C-1``.

        Returns:
            ``[R, 2S, 2S]``.
        """
        hidden = pooled
        for conv in self.convs:
            hidden = F.relu(conv(hidden))
        hidden = F.relu(self.deconv(hidden))
        row = torch.zeros_like(labels) if self.class_agnostic else labels
        weight, bias = self.predictor.weight.flatten(1)[row], self.predictor.bias[row]  # type: ignore[index]
        return torch.einsum("rchw,rc->rhw", hidden, weight.to(hidden.dtype)) + bias[:, None, None]

    def losses(self, logits: Tensor, regions: SampledRegions, targets: Targets) -> dict[str, Tensor]:
        """``mask``: mean binary cross-entropy over the pixels of foreground regions.

        Args:
            logits: ``[P, M, M]`` of the foreground regions, in their order.
            regions: foreground regions only.
            targets: ground truth.
        """
        if not len(logits):
            return {"mask": logits.sum()}
        wanted = mask_targets(regions, targets, logits.shape[-1])
        loss = F.binary_cross_entropy_with_logits(logits.float(), wanted)
        return {"mask": self.loss_weight * loss}


@torch.no_grad()
def mask_targets(regions: SampledRegions, targets: Targets, size: int) -> Tensor:
    """``[P, size, size]`` float32 in {0, 1}: each region's view of its ground truth's mask.

    The stored mask lies over the ground truth's own box; it is sampled bilinearly at the region's pixel centres and is
    0 outside that box.
    """
    image = regions.rois[:, 0].long()
    boxes = targets.boxes[image, regions.matched]
    masks = targets.masks[image, regions.matched]
    centres = (torch.arange(size, device=boxes.device) + 0.5) / size
    low, high = regions.rois[:, 1:3], regions.rois[:, 3:5]
    points = low[:, None] + centres[None, :, None] * (high - low)[:, None]
    extent = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    relative = 2 * (points - boxes[:, None, :2]) / extent[:, None] - 1
    x, y = relative[..., 0], relative[..., 1]
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    # Border padding: the raster ends at the object's edge, which blending with zeros would eat away.
    sampled = F.grid_sample(masks[:, None].float(), grid, padding_mode="border", align_corners=False)[:, 0]
    inside = (x[:, None, :].abs() <= 1) & (y[:, :, None].abs() <= 1)
    return ((sampled >= 0.5) & inside).float()
