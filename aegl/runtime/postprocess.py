"""From the padded result of the graph to what it says about one original image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aegl.metadata import ModelMeta
from aegl.runtime.masks import paste_and_encode, resize_and_encode


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
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    masks: np.ndarray | None,
    *,
    size: Sequence[int],
    orig_size: Sequence[int],
    conf: float,
    max_det: int,
) -> ImageDetections:
    """One image's detections in pixels of the original image.

    Boxes without area inside the image (those in the padding) are dropped. Masks over boxes are pasted with the box as
    predicted, which may reach beyond the image, so that clipping the box does not squeeze the mask.

    Args:
        boxes: ``[n, 4]`` x1 y1 x2 y2 in pixels of the network input.
        scores: ``[n]`` in [0, 1], falling.
        labels: ``[n]`` in ``0..C-1``.
        masks: ``[n, m, m]`` float probabilities over each box, or ``[n, H, W]`` bool or 0/1 uint8 over the network
            input, or None where there are none.
        size: height and width of the resized image inside the canvas.
        orig_size: height and width of the original image.
        conf: lowest score to keep.
        max_det: most detections to keep.
    """
    height, width = int(orig_size[0]), int(orig_size[1])
    scores = scores.astype(np.float64)
    scaled = boxes.astype(np.float64) * np.array([width / int(size[1]), height / int(size[0])] * 2)
    clipped = np.clip(scaled, 0, np.array([width, height] * 2, dtype=np.float64))
    has_area = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    keep = np.flatnonzero((scores >= conf) & has_area)[:max_det]
    encoded: list[dict[str, Any]] = []
    if masks is not None and masks.dtype.kind == "f":
        encoded = paste_and_encode(masks[keep], scaled[keep], height, width)
    elif masks is not None:
        encoded = resize_and_encode(masks[keep], size, height, width)
    return ImageDetections(clipped[keep], scores[keep], labels[keep].astype(np.int64), encoded)


def detections_json(meta: ModelMeta, found: ImageDetections) -> list[dict[str, Any]]:
    """Plain values of each detection: label, category id, name, band, score, box and, where it has one, mask."""
    rows: list[dict[str, Any]] = []
    for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), found.boxes_orig.tolist(), strict=True):
        rows.append(
            {
                "label": label,
                "category_id": meta.category_ids[label],
                "name": meta.names[label],
                "band": meta.band_names[meta.class_band[label]],
                "score": score,
                "box": box,
            }
        )
    for row, mask in zip(rows, found.masks, strict=False):
        row["mask"] = {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}
    return rows
