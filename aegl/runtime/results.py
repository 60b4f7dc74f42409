"""What a model found in one image, for programs and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from aegl.data.run_lengths import decode
from aegl.metadata import ModelMeta
from aegl.runtime.postprocess import ImageDetections, detections_json


@dataclass(frozen=True)
class Detected:
    """``n`` detections of one image, by falling score.

    Args:
        found: the detections in pixels of the image.
        meta: classes and bands of the model.
        size: height and width of the image (turned as its EXIF orientation says).
    """

    found: ImageDetections
    meta: ModelMeta
    size: tuple[int, int]

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.found)

    @property
    def boxes(self) -> np.ndarray:
        """``[n, 4]`` float32 ``x1 y1 x2 y2`` in pixels of the image, clipped to it."""
        return self.found.boxes_orig.astype(np.float32)

    @property
    def scores(self) -> np.ndarray:
        """``[n]`` float32 in [0, 1]."""
        return self.found.scores.astype(np.float32)

    @property
    def labels(self) -> np.ndarray:
        """``[n]`` int64 in ``0..C-1``."""
        return self.found.labels

    @property
    def names(self) -> list[str]:
        """``n`` class names."""
        return [self.meta.names[label] for label in self.labels]

    @property
    def bands(self) -> list[str]:
        """``n`` names of the classes' frequency bands."""
        return [self.meta.band_names[self.meta.class_band[label]] for label in self.labels]

    @property
    def masks(self) -> list[dict[str, Any]]:
        """``n`` COCO run lengths ``{"size": [h, w], "counts": bytes}``; none where the file was exported without."""
        return self.found.masks

    def mask(self, row: int) -> np.ndarray:
        """``[h, w]`` bool mask of one detection."""
        return decode(self.masks[row])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: size, and per detection class, band, score, box and mask (compressed RLE)."""
        return {
            "height": self.size[0],
            "width": self.size[1],
            "detections": detections_json(self.meta, self.found),
        }
