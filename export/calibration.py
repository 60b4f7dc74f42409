"""The images of the user that fix the ranges of a quantised file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aegl.data.preprocess import Preprocess, load_image

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore


def evenly(number: int, most: int) -> np.ndarray:
    """``[min(number, most)]`` int64 rows of ``0..number-1`` in order, as far apart as can be."""
    return np.linspace(0, number, min(number, most), endpoint=False).astype(np.int64)


def images_of(store: AnnotationStore, most: int) -> list[Path]:
    """Image files of a split, evenly spread over it. Raises :class:`DataError` for one that is missing."""
    return [store.image_path(int(row)) for row in evenly(len(store), most)]


def calibration_images(paths: Sequence[Path], preprocess: Preprocess) -> Iterator[np.ndarray]:
    """``[1, 3, H, W]`` float32 network inputs, one at a time. Raises :class:`DataError` for an unreadable image."""
    for path in paths:
        resized, _, _ = preprocess.resize(load_image(path, apply_exif=True))
        yield preprocess.pad_batch([resized]).astype(np.float32)
