"""Made-up data of the size of LVIS, for scripts that measure what a model costs and not what it learns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from aegl.longtail.statistics import ClassStatistics
from aegl.metadata import ModelMeta
from aegl.models.mask_rcnn import MaskRCNN
from aegl.types import Batch, Targets


def long_tail(classes: int) -> ClassStatistics:
    """Counts that fall from 50,000 to 1, with LVIS's bands."""
    instances = np.geomspace(50_000, 1, classes).round().astype(np.int64)
    images = np.maximum(instances // 3, 1)
    return ClassStatistics(instances, images, 100_000, np.digitize(images, [11, 101]))


def random_targets(classes: int, batch: int, objects: int, size: tuple[int, int], rng: torch.Generator) -> Targets:
    """Objects of all sizes anywhere in the image."""
    height, width = size
    corner = torch.rand(batch, objects, 2, generator=rng) * torch.tensor([width * 0.7, height * 0.7])
    side = 16 + torch.rand(batch, objects, 2, generator=rng) * 0.25 * height
    labels = torch.randint(0, classes, (batch, objects), generator=rng)
    masks = torch.ones(batch, objects, 56, 56, dtype=torch.uint8)
    return Targets(torch.cat([corner, corner + side], -1), labels, masks, torch.full((batch,), objects))


def random_batch(classes: int, batch: int, objects: int, size: tuple[int, int], rng: torch.Generator) -> Batch:
    """Noise with such objects."""
    images = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=rng)
    sizes = torch.tensor([size]).expand(batch, 2)
    return Batch(images, sizes, sizes, torch.arange(batch), random_targets(classes, batch, objects, size, rng))


@torch.no_grad()
def calibrate(model: MaskRCNN, images: Iterable[Tensor]) -> None:
    """Scale random layers so that proposals and class scores spread instead of being alike; the best scores 0.98."""
    model.eval()
    torch.nn.init.normal_(model.rpn.objectness.weight, std=0.1)
    layer: Any = model.box_head.classifier
    logits = torch.cat([_logits(model, batch) for batch in images])
    middle = logits.mean(0)
    factor = 8.0 / (logits - middle).max()
    layer.weight.mul_(factor)
    layer.bias.copy_(factor * (layer.bias - middle) - 4.0)


def _logits(model: MaskRCNN, images: Tensor) -> Tensor:
    """Of the best proposals of the first image."""
    features = model._features(images[:1])
    proposals, valid, _ = model.rpn(features, (images.shape[2], images.shape[3]))
    chosen = proposals[0][valid[0]][:300]
    logits, _ = model.box_head(model.box_pool(features, torch.cat([torch.zeros(len(chosen), 1), chosen], dim=1)))
    return cast(Tensor, logits)


def meta_of(model: MaskRCNN, classes: int, config: Any) -> ModelMeta:
    """Metadata of a model without a data set."""
    return ModelMeta(
        names=tuple(f"class {i}" for i in range(classes)),
        category_ids=tuple(range(1, classes + 1)),
        band_names=("r", "c", "f"),
        class_band=(0,) * classes,
        model=config.model,
        method=config.method,
        data="none",
        protocol="lvis",
        imgsz=config.imgsz,
        max_size=config.max_size,
        stride=model.stride,
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
        conf=model.postprocess.conf,
        iou=model.postprocess.iou,
        max_det=model.postprocess.max_det,
        mask_size=2 * config.mask.pool,
    )
