"""The two operators of the detector that are not plain tensor algebra, with output shapes known in advance.

Both are custom operators, so that ``torch.export`` sees one node of fixed shape instead of data-dependent sizes;
:mod:`aegl.export` knows how each is written in standard ONNX.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms, roi_align

from aegl.models.sparse_roi_align import sparse_roi_align

NMS_STEP = 1 / 512
"""Overlaps are judged on boxes rounded to this, pixels: coarse enough for an exported graph, which computes in float32,
to move the boxes of 1203 classes apart without rounding them any further, and so to keep the same boxes."""
SAMPLING_RATIO = 0
"""Sampling points per RoIAlign bin: 0 adapts to the region's size, as the reference recipes do."""


@torch.library.custom_op("aegl::nms_padded", mutates_args=())
def nms_padded(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, max_out: int
) -> tuple[Tensor, Tensor]:
    """Greedy non-maximum suppression of a batch, within each group of each image.

    Args:
        boxes: ``[B, N, 4]`` float32 ``x1 y1 x2 y2``, pixels, not negative.
        scores: ``[B, N]`` float32 in [0, 1]; a negative score marks padding, which is never kept.
        groups: ``[B, N]`` int64; boxes of different groups never suppress each other.
        iou_threshold: overlap above which the lower-scoring box is dropped.
        max_out: boxes kept per image over all groups, ``M``.

    Returns:
        ``[B, M]`` int64 indices into N by falling score, the first of equal ones first (0 where nothing is kept), and
        ``[B, M]`` bool, true where a box is kept.
    """
    images = scores.shape[0]
    indices = torch.zeros(images, max_out, dtype=torch.int64, device=boxes.device)
    valid = torch.zeros(images, max_out, dtype=torch.bool, device=boxes.device)
    # Groups are kept apart by shifting their boxes; with 1203 of them only float64 leaves the boxes as they were.
    boxes = (boxes.double() / NMS_STEP).round() * NMS_STEP
    # Image by image: suppression costs the square of the number of boxes.
    for image in range(images):
        order = scores[image].argsort(descending=True, stable=True)
        real = order[scores[image][order] >= 0]
        kept = batched_nms(boxes[image][real], scores[image][real].double(), groups[image][real], iou_threshold)
        # By rank, as batched_nms() does not say in which order it gives equal scores.
        kept = real[kept.sort().values[:max_out]]
        indices[image, : len(kept)] = kept
        valid[image, : len(kept)] = True
    return indices, valid


@nms_padded.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, max_out: int) -> tuple[Tensor, Tensor]:
    shape = (scores.shape[0], max_out)
    return groups.new_empty(shape), groups.new_empty(shape, dtype=torch.bool)


@torch.library.custom_op("aegl::roi_align_levels", mutates_args=())
def _roi_align_levels_op(
    features: list[Tensor], rois: Tensor, levels: Tensor, strides: list[int], output_size: int, sampling_ratio: int
) -> Tensor:
    return _roi_align_levels(features, rois, levels, strides, output_size, sampling_ratio)


@_roi_align_levels_op.register_fake
def _(
    features: list[Tensor], rois: Tensor, levels: Tensor, strides: list[int], output_size: int, sampling_ratio: int
) -> Tensor:
    shape = (rois.shape[0], features[0].shape[1], output_size, output_size)
    return features[0].new_empty(shape, dtype=torch.float32)


def roi_align_levels(
    features: list[Tensor],
    rois: Tensor,
    levels: Tensor,
    strides: list[int],
    output_size: int,
    sampling_ratio: int = SAMPLING_RATIO,
) -> Tensor:
    """RoIAlign (half-pixel aligned) of every region on its own pyramid level.

    Args:
        features: one ``[B, C, Hi, Wi]`` map per level.
        rois: ``[R, 5]`` float32: image index, then ``x1 y1 x2 y2`` in input pixels.
        levels: ``[R]`` int64 index into ``features``.
        strides: input pixels per feature pixel, by level.
        output_size: side of the output, ``S``.
        sampling_ratio: points per bin and axis, 0 for adaptive.

    Returns:
        ``[R, C, S, S]`` float32, differentiable with respect to the features.
    """
    # The operator has no gradient; it is needed only where a graph of fixed shapes is wanted.
    run = _roi_align_levels_op if torch.compiler.is_exporting() else _roi_align_levels
    return run(features, rois, levels, strides, output_size, sampling_ratio)


def _roi_align_levels(
    features: list[Tensor], rois: Tensor, levels: Tensor, strides: list[int], output_size: int, sampling_ratio: int
) -> Tensor:
    run = sparse_roi_align if rois.device.type == "cpu" else roi_align_by_level
    return run(features, rois, levels, strides, output_size, sampling_ratio)


def roi_align_by_level(
    features: list[Tensor], rois: Tensor, levels: Tensor, strides: list[int], output_size: int, sampling_ratio: int
) -> Tensor:
    """What :func:`roi_align_levels` gives, by torchvision's operator, which is the faster one on a GPU."""
    order = levels.argsort(stable=True)
    # The only numbers that the device is waited for.
    numbers = (levels[:, None] == torch.arange(len(features), device=levels.device)).sum(dim=0).tolist()
    parts = rois.float()[order].split(numbers)
    # In float32 whatever the features: half precision would round box coordinates to whole pixels and worse.
    pooled = [
        roi_align(feature.float(), part, output_size, 1.0 / stride, sampling_ratio, aligned=True)
        for feature, part, stride in zip(features, parts, strides, strict=True)
    ]
    return torch.cat(pooled)[order.argsort()]
