"""The mask head: computes only the mask of the class that is needed, never all C of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aegl.longtail.clustering import k_means
from aegl.models.roi_sampler import SampledRegions
from aegl.types import Targets


class Deconvolution(nn.ConvTranspose2d):
    """2x2 deconvolution of stride 2. No two of its pixels share an input pixel, so it is one product of matrices.

    Args:
        in_channels: channels of the input, ``c``.
        out_channels: channels of the output, ``d``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2)

    def forward(self, hidden: Tensor) -> Tensor:  # type: ignore[override]
        """``[R, c, S, S]`` to ``[R, S * S * 4, d]``, in the order of :func:`as_maps`."""
        assert self.bias is not None
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)
        quads = F.linear(hidden.permute(0, 2, 3, 1), weight, self.bias.repeat(4))
        return quads.unflatten(3, (4, -1)).flatten(1, 3)


def as_maps(pixels: Tensor, side: int) -> Tensor:
    """``[R, S * S * 4]``, four pixels for each of ``side`` rows and columns, to ``[R, 2S, 2S]``."""
    return pixels.unflatten(1, (side, side, 2, 2)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


class MaskPredictor(nn.Conv2d):
    """1x1 convolution with an output channel per class, of which a region needs only one."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def row(self, pixels: Tensor, row: Tensor) -> Tensor:
        """One output channel for each region.

        Args:
            pixels: ``[R, P, in_channels]``.
            row: ``[R]`` int64, which output channel.

        Returns:
            ``[R, P]``, what :meth:`forward` has in that channel.
        """
        return _product(pixels, self.weight.flatten(1)[row]) + self._bias(row)

    def _bias(self, row: Tensor) -> Tensor:
        return self.bias[row][:, None]  # type: ignore[index]


class CosineMaskPredictor(MaskPredictor):
    """:class:`MaskPredictor` on features and weights of norm 1 over the channels; Seesaw and GOL use it.

    ``temperature * x/(|x| + eps) . w/(|w| + eps) + b`` at every pixel: mmdetection's ``NormedConv2d`` of kernel size 1.
    """

    def __init__(self, in_channels: int, out_channels: int, *, temperature: float = 20.0, eps: float = 1e-6) -> None:
        super().__init__(in_channels, out_channels)
        self.temperature = temperature
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """``[R, in_channels, H, W]`` to ``[R, out_channels, H, W]``."""
        cosines = F.conv2d(hidden, self._unit(self.weight)) * self._scale(hidden, 1)[:, None]
        return cosines + self.bias[:, None, None]  # type: ignore[index]

    def row(self, pixels: Tensor, row: Tensor) -> Tensor:
        """See :meth:`MaskPredictor.row`."""
        weight = self._unit(self.weight.flatten(1)[row])
        return _product(pixels, weight) * self._scale(pixels, -1) + self._bias(row)

    def _scale(self, features: Tensor, dim: int) -> Tensor:
        """What the product is multiplied by, so that no normalised copy of the features is made."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        norm = torch.linalg.vector_norm(features, dim=dim, dtype=dtype)
        # Where there is no feature the product is 0; a factor of 1 / eps would overflow in the gradient of fp16.
        return torch.where(norm > 0, self.temperature / (norm + self.eps), 0.0)

    def _unit(self, weight: Tensor) -> Tensor:
        return weight / (torch.linalg.vector_norm(weight, dim=1, keepdim=True) + self.eps)


def _product(pixels: Tensor, weight: Tensor) -> Tensor:
    """``[R, P, c]`` features times ``[R, c]`` weights to ``[R, P]``."""
    return torch.bmm(pixels, weight[:, :, None].to(pixels.dtype)).squeeze(2)


class MaskHead(nn.Module):
    """Convolutions, a deconvolution and a 1x1 predictor.

    Args:
        in_channels: channels of the pooled regions.
        channels: channels of the convolutions.
        convs: number of 3x3 convolutions.
        num_classes: ``C``.
        class_agnostic: one mask for all classes instead of one per class.
        clusters: classes of similar shape share one of so many masks, but at most half as many as there are classes; 0
            for one mask per class.
        predictor: kind of the last layer.
        temperature: scale of a cosine predictor.
        loss_weight: weight of the mask loss.
    """

    row_of_class: Tensor
    """``[C]`` int64."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        convs: int,
        num_classes: int,
        *,
        class_agnostic: bool = False,
        clusters: int = 0,
        predictor: Literal["linear", "cosine"] = "linear",
        temperature: float = 20.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic
        self.loss_weight = loss_weight
        widths = [in_channels] + [channels] * convs
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.deconv = Deconvolution(widths[-1], channels)
        clusters = min(clusters, max(1, num_classes // 2))
        outputs = 1 if class_agnostic else clusters or num_classes
        self.predictor = (
            CosineMaskPredictor(channels, outputs, temperature=temperature)
            if predictor == "cosine"
            else MaskPredictor(channels, outputs)
        )
        # Which of the predictor's masks is a class's own. Shared ones are known only once the classes are described.
        rows = torch.arange(num_classes) * outputs // max(num_classes, 1)
        shares = 1 < outputs < num_classes
        self.register_buffer("row_of_class", rows, persistent=shares)
        self.class_descriptions: tuple[str, ...] = ("mask",) if shares else ()
        self.class_tables: tuple[str, ...] = ("row_of_class",) if shares else ()
        for layer in [*self.convs, self.deconv, self.predictor]:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def describe_classes(self, vectors: Mapping[str, Tensor]) -> None:
        """Group the classes by their mean masks; see :meth:`aegl.longtail.base.ClassificationLoss.describe_classes`."""
        self.row_of_class.copy_(k_means(vectors["mask"], self.predictor.out_channels))

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
            hidden = F.relu(conv(hidden), inplace=True)
        # In place on a view, the gradient would copy its base thrice.
        pixels = F.relu(self.deconv(hidden), inplace=not torch.is_grad_enabled())
        return as_maps(self.predictor.row(pixels, self.row_of_class[labels]), hidden.shape[-1])

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
