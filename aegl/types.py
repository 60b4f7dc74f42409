"""What flows between the data, the model and the engine.

Conventions, here and everywhere: boxes are float32 ``x1 y1 x2 y2`` in pixels of the network input unless a name ends in
``_orig`` (pixels of the original image); labels are ``0..C-1`` and background is ``C``; images are RGB.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


class _MovesToDevice:
    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return a copy whose tensors lie on ``device``."""
        moved: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor | _MovesToDevice):
                moved[field.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass
class Targets(_MovesToDevice):
    """Ground truth of a batch, padded to the largest number of objects ``G`` (``G`` may be 0)."""

    boxes: Tensor
    """``[B, G, 4]`` float32; padding rows are zero."""
    labels: Tensor
    """``[B, G]`` int64 in ``0..C-1``; padding rows are -1."""
    masks: Tensor
    """``[B, G, M, M]`` uint8 in {0, 1}: each object's mask rasterised over its own box, not over the image."""
    num_objects: Tensor
    """``[B]`` int64."""
    verified: Tensor | None = None
    """``[B, C]`` bool, true for classes of which the image holds no more than is annotated; None: all of them are."""
    focus: Tensor | None = None
    """``[B]`` int64 class for which the sampler drew each image, -1 for none; None: the sampler draws no classes."""


@dataclass
class Batch(_MovesToDevice):
    """A batch of images, padded on the right and below to one size that is a multiple of the model's stride."""

    images: Tensor
    """``[B, 3, H, W]`` uint8, RGB; padded with the model's rounded pixel mean."""
    sizes: Tensor
    """``[B, 2]`` int64: height and width of each image inside the padded canvas."""
    orig_sizes: Tensor
    """``[B, 2]`` int64: height and width of each original image."""
    image_index: Tensor
    """``[B]`` int64: row of each image in its :class:`aegl.data.store.AnnotationStore`."""
    targets: Targets | None = None


@dataclass
class Detections(_MovesToDevice):
    """Padded result of the inference graph; row ``k`` of image ``b`` is real where ``k < num_detections[b]``.

    Rows are sorted by falling score; padding rows are zero (label -1).
    """

    boxes: Tensor
    """``[B, K, 4]`` float32, pixels of the network input."""
    scores: Tensor
    """``[B, K]`` float32 in [0, 1]."""
    labels: Tensor
    """``[B, K]`` int64 in ``0..C-1``."""
    masks: Tensor | None
    """``[B, K, M, M]`` float32 probabilities over each box; None from a model that gives none."""
    num_detections: Tensor
    """``[B]`` int64."""
    complete: Tensor
    """``[B]`` bool: true where limiting the candidates before NMS provably changed nothing."""
