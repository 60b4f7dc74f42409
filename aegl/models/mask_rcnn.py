"""Mask R-CNN (He et al., ICCV 2017) with FPN, put together so that the inference graph can be written down as it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Self, cast

import torch
from torch import Tensor, nn

from aegl.models.backbone import TimmBackbone
from aegl.models.box_head import BoxHead
from aegl.models.fpn import FeaturePyramid
from aegl.models.mask_head import MaskHead
from aegl.models.postprocess import PostprocessOptions, select
from aegl.models.roi_pool import RegionPool
from aegl.models.roi_sampler import RegionSampler
from aegl.models.rpn import RegionProposals
from aegl.types import Detections, Targets


class MaskRCNN(nn.Module):
    """The detector.

    Args:
        backbone: images to feature maps.
        neck: feature maps to pyramid levels.
        rpn: pyramid to proposals.
        sampler: proposals to training regions.
        box_pool: pools regions for the box head.
        box_head: scores and boxes.
        mask_pool: pools regions for the mask head.
        mask_head: masks.
        pixel_mean: RGB mean in 0..255.
        pixel_std: RGB standard deviation in 0..255.
        postprocess: operating point; may be changed on a trained model.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: TimmBackbone,
        neck: FeaturePyramid,
        rpn: RegionProposals,
        sampler: RegionSampler,
        box_pool: RegionPool,
        box_head: BoxHead,
        mask_pool: RegionPool,
        mask_head: MaskHead,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        postprocess: PostprocessOptions,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.rpn = rpn
        self.sampler = sampler
        self.box_pool = box_pool
        self.box_head = box_head
        self.mask_pool = mask_pool
        self.mask_head = mask_head
        self.postprocess = postprocess
        self._frozen: list[nn.Module] = []
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)).view(1, 3, 1, 1), persistent=False)

    @property
    def stride(self) -> int:
        """Sides of the network input are multiples of this."""
        return max(32, *self.backbone.strides)

    def freeze_all_but(self, parts: Sequence[str]) -> None:
        """Train these parts only. The others keep their weights, their norm statistics, and drop nothing out.

        Args:
            parts: names of submodules, e.g. ``box_head.classifier``.
        """
        trained = {id(module) for name in parts for module in self.get_submodule(name).modules()}
        # Modules without weights of their own direct how training goes (sampling, state of losses) and are left alone.
        methods = {id(module) for part in self.box_head.method_parts() for module in part.modules()}
        leaves = [module for module in self.modules() if not list(module.children())]
        self._frozen = [leaf for leaf in leaves if id(leaf) not in trained | methods]
        for module in self.modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(parameter.requires_grad and id(module) in trained)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; frozen layers stay in the latter."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def forward(self, images: Tensor, targets: Targets | None = None) -> Detections | dict[str, Tensor]:
        """Detections in evaluation mode, named scalar losses in training mode.

        Args:
            images: ``[B, 3, H, W]`` RGB in 0..255, uint8 or float; H and W are multiples of :attr:`stride`.
            targets: ground truth; needed in training, not used otherwise.
        """
        if not self.training:
            return Detections(*self.inference_tensors(images))
        if targets is None:
            raise ValueError("a model in training mode needs targets; call .eval() for detections")
        return self.losses(images, targets)

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Named scalar losses of a batch; see :meth:`forward`."""
        features = self._features(images)
        proposals, valid, losses = self.rpn(features, _size(images), targets)
        regions = self.sampler(proposals, valid, targets)
        pool = partial(self.box_pool, features)
        losses |= self.box_head.losses(regions, targets, pool, _size(images))
        foreground = regions.take((regions.labels < self.sampler.num_classes).nonzero().squeeze(1))
        mask_logits = self.mask_head(self.mask_pool(features, foreground.rois), foreground.labels)
        losses |= self.mask_head.losses(mask_logits, foreground, targets)
        return cast(dict[str, Tensor], losses)

    def inference_tensors(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The inference graph: the fields of :class:`aegl.types.Detections` in their order, as plain tensors."""
        features = self._features(images)
        proposals, valid, _ = self.rpn(features, _size(images))
        logits, deltas = self.box_head(self.box_pool(features, _as_rois(proposals)))
        batch = proposals.shape[:2]
        scores = self.box_head.scores(logits).unflatten(0, batch)
        selection = select(
            scores, deltas.unflatten(0, batch), proposals, valid, _size(images), self.box_head.coder, self.postprocess
        )
        masks = self._masks(features, selection.boxes, selection.labels) * selection.valid[..., None, None]
        return (
            selection.boxes,
            selection.scores,
            selection.labels,
            masks,
            selection.num_detections,
            selection.complete,
        )

    def _features(self, images: Tensor) -> list[Tensor]:
        normalised = (images.float() - self.pixel_mean) / self.pixel_std
        return cast(list[Tensor], self.neck(self.backbone(normalised)))

    def _masks(self, features: list[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """``[B, K, M, M]`` float32 probabilities."""
        pooled = self.mask_pool(features, _as_rois(boxes))
        logits = self.mask_head(pooled, labels.flatten().clamp(min=0))
        return logits.float().sigmoid().unflatten(0, boxes.shape[:2])


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _as_rois(boxes: Tensor) -> Tensor:
    """``[B, K, 4]`` to ``[B * K, 5]`` with the image index in front."""
    index = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
    return torch.cat([index[:, None, None].expand(-1, boxes.shape[1], 1), boxes], dim=-1).flatten(0, 1)
