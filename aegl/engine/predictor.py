"""Prediction on pictures: files in, one :class:`Prediction` per image out, as soon as it is ready."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aegl.data.preprocess import Preprocess, load_image
from aegl.data.run_lengths import decode
from aegl.engine.backend import Backend
from aegl.engine.postprocess import to_original
from aegl.metadata import ModelMeta
from aegl.plots.draw import draw_detections
from aegl.runtime.postprocess import ImageDetections, detections_json


@dataclass(frozen=True)
class Prediction:
    """What a model found in one image; ``n`` detections by falling score.

    Args:
        path: the image.
        orig_size: its height and width (turned as its EXIF orientation says).
        boxes_orig: ``[n, 4]`` float64 ``x1 y1 x2 y2`` in pixels of the image.
        scores: ``[n]`` float64 in [0, 1].
        labels: ``[n]`` int64 in ``0..C-1``.
        masks: ``n`` COCO run lengths ``{"size": [h, w], "counts": bytes}``; empty from a model without masks.
        meta: classes and bands of the model.
    """

    path: Path
    orig_size: tuple[int, int]
    boxes_orig: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[dict[str, Any]]
    meta: ModelMeta

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        """``n`` class names."""
        return [self.meta.names[label] for label in self.labels]

    @property
    def bands(self) -> list[str]:
        """``n`` names of the classes' frequency bands."""
        return [self.meta.band_names[self.meta.class_band[label]] for label in self.labels]

    def mask(self, row: int) -> np.ndarray:
        """``[h, w]`` bool mask of one detection."""
        return decode(self.masks[row])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: path, size, and per detection class, band, score, box and mask (compressed RLE)."""
        return {
            "path": str(self.path),
            "height": self.orig_size[0],
            "width": self.orig_size[1],
            "detections": detections_json(
                self.meta, ImageDetections(self.boxes_orig, self.scores, self.labels, self.masks)
            ),
        }

    def draw(self) -> Image.Image:
        """The image with masks, boxes and labels in the colours of the bands; reads the file again."""
        return draw_detections(
            load_image(self.path, apply_exif=True),
            boxes=self.boxes_orig,
            scores=self.scores,
            names=self.names,
            bands=np.asarray([self.meta.class_band[label] for label in self.labels], dtype=np.int64),
            band_names=self.meta.band_names,
            mask_of=self.mask if self.masks else None,
        )


def predict(
    backend: Backend,
    paths: Sequence[Path],
    *,
    conf: float,
    max_det: int | None = None,
    imgsz: int | None = None,
    max_size: int | None = None,
    batch: int = 1,
) -> Iterator[Prediction]:
    """Detect in images, a batch at a time.

    Args:
        backend: the model.
        paths: image files.
        conf: lowest score to report.
        max_det: most detections per image; default and upper limit: the model's own.
        imgsz: short side of the network input in pixels; default: the model's own.
        max_size: largest long side; default: the model's own.
        batch: images per call of the model.

    Raises:
        DataError: naming the image that cannot be read.
    """
    meta = backend.meta
    preprocess = Preprocess(
        imgsz or meta.imgsz, max_size or meta.max_size, meta.stride, meta.pad_value, canvas=backend.canvas
    )
    limit = meta.max_det if max_det is None else min(max_det, meta.max_det)
    remaining = iter(paths)
    while chunk := list(itertools.islice(remaining, batch)):
        images = [load_image(path, apply_exif=True) for path in chunk]
        resized = [preprocess.resize(image)[0] for image in images]
        detections = backend(preprocess.pad_batch(resized))
        for row, (path, image, small) in enumerate(zip(chunk, images, resized, strict=True)):
            orig_size = (image.shape[0], image.shape[1])
            found = to_original(detections, row, size=small.shape[:2], orig_size=orig_size, conf=conf, max_det=limit)
            yield _prediction(path, orig_size, found, meta)


def _prediction(path: Path, orig_size: tuple[int, int], found: ImageDetections, meta: ModelMeta) -> Prediction:
    return Prediction(path, orig_size, found.boxes_orig, found.scores, found.labels, found.masks, meta)
