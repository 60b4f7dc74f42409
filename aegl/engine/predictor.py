"""Prediction on pictures: frames in, one :class:`Prediction` out for each, as soon as it is ready."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from aegl.data.preprocess import Preprocess
from aegl.engine.backend import Backend
from aegl.engine.postprocess import to_original
from aegl.engine.prediction import Prediction
from aegl.engine.slicing import Slicing, merged, tiles_of
from aegl.engine.sources import Frame, of_file
from aegl.runtime.postprocess import ImageDetections

__all__ = ["Prediction", "predict"]


def predict(
    backend: Backend,
    images: Iterable[Frame | Path],
    *,
    conf: float,
    max_det: int | None = None,
    imgsz: int | None = None,
    max_size: int | None = None,
    batch: int = 1,
    slicing: Slicing | None = None,
) -> Iterator[Prediction]:
    """Detect in images, a batch at a time.

    Args:
        backend: the model.
        images: frames, or paths of image files.
        conf: lowest score to report.
        max_det: most detections per image; default and upper limit: the model's own.
        imgsz: short side of the network input in pixels; default: the model's own.
        max_size: largest long side; default: the model's own.
        batch: images per call of the model.
        slicing: detect in parts of the images too, for objects that are small in them; None for the whole alone.

    Raises:
        DataError: naming the image that cannot be read.
    """
    meta = backend.meta
    preprocess = Preprocess(
        imgsz or meta.imgsz, max_size or meta.max_size, meta.stride, meta.pad_value, canvas=backend.canvas
    )
    limit = meta.max_det if max_det is None else min(max_det, meta.max_det)
    remaining = (image if isinstance(image, Frame) else of_file(image) for image in images)
    while chunk := list(itertools.islice(remaining, batch)):
        pixels = [frame.load() for frame in chunk]
        found = _detect(backend, preprocess, pixels, conf, limit)
        for frame, image, whole in zip(chunk, pixels, found, strict=True):
            if slicing is not None:
                whole = _with_parts(backend, preprocess, image, whole, slicing, conf, limit, batch)
            size = image.shape[0], image.shape[1]
            yield Prediction(frame, size, whole.boxes_orig, whole.scores, whole.labels, whole.masks, meta)


def _with_parts(
    backend: Backend,
    preprocess: Preprocess,
    image: np.ndarray,
    whole: ImageDetections,
    slicing: Slicing,
    conf: float,
    limit: int,
    batch: int,
) -> ImageDetections:
    """What was found in the whole image, merged with what is found in its tiles."""
    tiles = tiles_of(image.shape[:2], slicing)
    parts = [image[tile.top : tile.bottom, tile.left : tile.right] for tile in tiles]
    inside: list[ImageDetections] = []
    for start in range(0, len(parts), batch):
        inside += _detect(backend, preprocess, parts[start : start + batch], conf, limit)
    return merged(whole, inside, tiles, image.shape[:2], limit)


def _detect(
    backend: Backend, preprocess: Preprocess, images: Sequence[np.ndarray], conf: float, limit: int
) -> list[ImageDetections]:
    """What the model finds in each image, in pixels of that image."""
    resized = [preprocess.resize(image)[0] for image in images]
    detections = backend(preprocess.pad_batch(resized))
    return [
        to_original(detections, row, size=small.shape[:2], orig_size=image.shape[:2], conf=conf, max_det=limit)
        for row, (image, small) in enumerate(zip(images, resized, strict=True))
    ]
