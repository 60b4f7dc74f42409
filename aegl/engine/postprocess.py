"""From the padded result of the network to what it says about one original image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aegl.data.masks import paste_and_encode
from aegl.types import Detections


@dataclass(frozen=True)
class ImageDetections:
    """``n`` detections of one image, by falling score.

    Args:
        boxes_orig: ``[n, 4]`` float64 ``x1 y1 x2 y2``, clipped to the image.
        scores: ``[n]`` float64 in [0, 1].
        labels: ``[n]`` int64 in ``0..C-1``.
        masks: ``n`` COCO run lengths ``{"size": [h, w], "counts": bytes}`` of the original image.
    """

    boxes_orig: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[dict[str, Any]]

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.labels)


def to_original(
    detections: Detections,
    row: int,
    *,
    size: Sequence[int],
    orig_size: Sequence[int],
    conf: float,
    max_det: int,
) -> ImageDetections:
    """One image's detections in pixels of the original image.

    Boxes without area inside the image (those in the padding) are dropped. Masks are pasted with the box as predicted,
    which may reach beyond the image, so that clipping the box does not squeeze the mask.

    Args:
        detections: of the batch, on the CPU.
        row: the image's row in it.
        size: height and width of the resized image inside the canvas.
        orig_size: height and width of the original image.
        conf: lowest score to keep.
        max_det: most detections to keep.
    """
    count = int(detections.num_detections[row])
    boxes = detections.boxes[row, :count].numpy().astype(np.float64)
    scores = detections.scores[row, :count].numpy().astype(np.float64)
    height, width = int(orig_size[0]), int(orig_size[1])
    boxes *= np.array([width / int(size[1]), height / int(size[0])] * 2)
    clipped = np.clip(boxes, 0, np.array([width, height] * 2, dtype=np.float64))
    has_area = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    keep = np.flatnonzero((scores >= conf) & has_area)[:max_det]
    masks = detections.masks[row].numpy()[keep]
    return ImageDetections(
        boxes_orig=clipped[keep],
        scores=scores[keep],
        labels=detections.labels[row].numpy()[keep].astype(np.int64),
        masks=paste_and_encode(masks, boxes[keep], height, width),
    )
