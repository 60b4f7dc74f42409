"""RoIAlign as a weighted sum of pixels for each bin, which is how a CPU does it fastest.

torchvision's operator goes through four pixels for each sampling point, channel by channel. A bin's points form a grid,
so that a pixel's weight is a factor of its row times one of its column, pixels that several points share are read once,
and each read is of all channels. The sums are torch's own `embedding_bag`, gradient included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class _Axis:
    """What ``R`` regions of ``S`` bins read along one axis."""

    first: Tensor
    """``[R, S]`` int64: first row (or column) of each bin."""
    number: Tensor
    """``[R, S]`` int64, at least 1: how many it reads."""
    weights: Tensor
    """``[R, S, K]``: their weights, 0 from ``number`` on."""

    def per_bin(self, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """``[R, S, S]`` each: first, number, where the bin's weights begin among all; ``dim`` 1 for rows, else 2."""
        regions, bins, span = self.weights.shape
        begins = torch.arange(regions * bins).view(regions, bins) * span
        parts = (part.unsqueeze(3 - dim) for part in (self.first, self.number, begins))
        first, number, begin = (part.expand(-1, bins, bins) for part in parts)
        return first, number, begin


def sparse_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    levels: Tensor,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
) -> Tensor:
    """What :func:`aegl.models.ops.roi_align_levels` gives, on a CPU. Arguments as there.

    Returns:
        ``[R, C, S, S]`` float32 in channels-last order.
    """
    # One table of the pixels of all levels and images.
    pixels = torch.cat([feature.permute(0, 2, 3, 1).flatten(0, 2).float() for feature in features])
    batch, shape = features[0].shape[0], (len(rois), output_size, output_size, pixels.shape[1])
    if not len(rois):
        return (pixels[:0].sum() + pixels.new_zeros(shape)).permute(0, 3, 1, 2)
    sizes = torch.tensor([feature.shape[2:] for feature in features])
    height, width = sizes[levels].unbind(1)
    image_starts = F.pad(sizes.prod(1).cumsum(0) * batch, (1, 0))[levels] + rois[:, 0].long() * height * width
    boxes = rois[:, 1:].float() * (1.0 / torch.tensor(strides))[levels, None]
    rows = _axis(boxes[:, 1], boxes[:, 3], height, output_size, sampling_ratio)
    columns = _axis(boxes[:, 0], boxes[:, 2], width, output_size, sampling_ratio)
    which, weights, offsets = _bags(rows, columns, image_starts, width)
    pooled = F.embedding_bag(which, pixels, offsets, mode="sum", per_sample_weights=weights)
    return pooled.view(shape).permute(0, 3, 1, 2)


def _axis(low: Tensor, high: Tensor, limit: Tensor, bins: int, sampling_ratio: int) -> _Axis:
    """Bilinear weights of a bin's sampling points, summed by the row (or column) that they fall upon.

    Args:
        low: ``[R]`` where the regions begin, feature pixels.
        high: ``[R]`` where they end.
        limit: ``[R]`` int64, feature pixels that there are.
        bins: ``S``.
        sampling_ratio: points per bin, 0 for one for each feature pixel begun.
    """
    step = ((high - low) / bins)[:, None, None]
    points = torch.full_like(step, sampling_ratio) if sampling_ratio else step.ceil()
    point = torch.arange(max(int(points.max()), 1))
    spacing = step / points.clamp(min=1)
    place = (low - 0.5)[:, None, None] + torch.arange(bins)[:, None] * step + (point + 0.5) * spacing
    size = limit[:, None, None]
    used = (point < points) & (place >= -1) & (place <= size)
    place = torch.minimum(place.clamp(min=0), size - 1)
    before = place.floor().long()
    first = before.amin(dim=2, keepdim=True)
    share = used / points.clamp(min=1)
    past = (place - before) * share
    before -= first
    weights = place.new_zeros(*place.shape[:2], int(before.max()) + 2)
    weights.scatter_add_(2, before, share - past).scatter_add_(2, before + 1, past)
    number = torch.where(weights > 0, torch.arange(1, weights.shape[2] + 1), 1).amax(dim=2)
    return _Axis(first[..., 0], number, weights)


def _bags(rows: _Axis, columns: _Axis, image_starts: Tensor, width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All the pixels that all bins read.

    Args:
        rows: what they read by row.
        columns: and by column.
        image_starts: ``[R]`` int64, number of the first pixel of each region's map.
        width: ``[R]`` int64, of that map.

    Returns:
        ``[E]`` int64 numbers of pixels, ``[E]`` their weights, and ``[R * S * S]`` int64: where each bin's begin.
    """
    top, tall, row_weights = rows.per_bin(1)
    left, wide, column_weights = columns.per_bin(2)
    width = width[:, None, None]
    corner = image_starts[:, None, None] + top * width + left
    lengths = (tall * wide).flatten()
    ends = lengths.cumsum(0)
    offsets = ends - lengths
    bag = torch.arange(len(lengths)).repeat_interleave(lengths)
    within = torch.arange(len(bag)) - offsets[bag]
    across = wide.flatten()[bag]
    row = within // across
    column = within - row * across
    which = corner.flatten()[bag] + row * width.expand_as(corner).flatten()[bag] + column
    row_weight = rows.weights.flatten()[row_weights.flatten()[bag] + row]
    return which, row_weight * columns.weights.flatten()[column_weights.flatten()[bag] + column], offsets
