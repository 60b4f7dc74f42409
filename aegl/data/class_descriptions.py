"""What the classes of a data set are like, for methods that group them: their usual shapes and their parents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aegl.data.masks import Segmentation, rasterize_in_box
from aegl.errors import ConfigError

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore

MASK_SIDE = 28
SAMPLE = 50
"""Masks per class that a mean is taken of: its error is then far below the differences between classes."""
_LISTED = 5


def mean_masks(store: AnnotationStore) -> np.ndarray:
    """The mean mask of every class, each object's over its own box.

    Of a class with many objects, :data:`SAMPLE` are looked at, evenly spread over the file. A class without any object
    gets the mean of the others.

    Args:
        store: the training annotations.

    Returns:
        ``[C, 784]`` float32 in [0, 1], row by row of 28 x 28.
    """
    total = np.zeros((store.num_classes, MASK_SIDE, MASK_SIDE), dtype=np.float64)
    number = np.zeros(store.num_classes, dtype=np.int64)
    images = store.ann_image
    for annotation in _sample(store).tolist():
        image_hw = [int(v) for v in store.image_sizes[images[annotation]]]
        x, y, w, h = (float(v) for v in store.ann_boxes_xywh[annotation])
        segmentation = store.segmentation(annotation)
        box = np.array([x, y, x + w, y + h]).clip(0, [*image_hw[::-1], *image_hw[::-1]])
        if _usable(segmentation, box, image_hw):
            label = int(store.ann_labels[annotation])
            total[label] += rasterize_in_box(segmentation, box, MASK_SIDE, image_hw)  # type: ignore[arg-type]
            number[label] += 1
    means = total / np.maximum(number, 1)[:, None, None]
    if (number > 0).any():
        means[number == 0] = means[number > 0].mean(axis=0)
    return means.reshape(store.num_classes, -1).astype(np.float32)


def parents(names: Sequence[str], supercategories: Sequence[str] | None, file: str | None) -> np.ndarray:
    """The number of every class's parent.

    Args:
        names: of the classes.
        supercategories: of the classes, as the annotation file has them, if it has.
        file: a JSON object from the name of each class to that of its parent, to use instead.

    Returns:
        ``[C]`` int64, parents numbered from 0 in the order in which they first occur.

    Raises:
        ConfigError: if neither says what the parents are, or the file cannot be used.
    """
    if file is not None:
        found: Sequence[str] = _parents_in(Path(file), names)
    elif supercategories is not None:
        found = supercategories
    else:
        raise ConfigError(
            "class_parents: not given, and the training annotations name no supercategory for every class; give a JSON "
            "file with an object {class name: parent name}"
        )
    order: dict[str, int] = {}
    return np.array([order.setdefault(parent, len(order)) for parent in found], dtype=np.int64)


def _parents_in(path: Path, names: Sequence[str]) -> list[str]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"class_parents={path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"class_parents={path}: is not JSON ({error})") from error
    if not isinstance(known, dict) or not all(isinstance(parent, str) for parent in known.values()):
        raise ConfigError(f"class_parents={path}: must hold an object {{class name: parent name}}")
    missing = [name for name in names if name not in known]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise ConfigError(f"class_parents={path}: no parent for {', '.join(missing[:_LISTED])}{more}")
    return [known[name] for name in names]


def _sample(store: AnnotationStore) -> np.ndarray:
    """Rows of the annotations to look at, crowds left out."""
    single = np.flatnonzero(~np.asarray(store.ann_crowd, dtype=bool))
    labels = np.asarray(store.ann_labels, dtype=np.int64)[single]
    by_class = single[np.argsort(labels, kind="stable")]
    counts = np.bincount(labels, minlength=store.num_classes)
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(by_class)) - np.repeat(starts, counts)
    number = np.repeat(counts, counts)
    # Of n objects those where rank * SAMPLE / n steps to a next whole number: all if n <= SAMPLE, else SAMPLE of them.
    chosen = (rank * SAMPLE) // number != ((rank - 1) * SAMPLE) // number
    return np.sort(by_class[chosen])


def _usable(segmentation: Segmentation | None, box: np.ndarray, image_hw: Sequence[int]) -> bool:
    """Whether there is a mask to look at; what is wrong with those that training needs is said when they are loaded."""
    if not segmentation or not (box[2:] > box[:2]).all():
        return False
    return not isinstance(segmentation, dict) or list(segmentation["size"]) == list(image_hw)
