"""An image of a store and its objects, in pixels of the file, before anything is done to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aegl.data.masks import Segmentation
from aegl.data.preprocess import load_image
from aegl.errors import DataError

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore


class UnreadableImageError(DataError):
    """An image file that is missing, truncated or no image; all others of its data set may be fine."""


MASKS_NEEDED = "training needs one for every object; box_masks=true takes the boxes where there is none"


@dataclass(frozen=True)
class AnnotatedObjects:
    """The objects of one image, in double precision.

    Args:
        boxes: ``[G, 4]`` float64 x1 y1 x2 y2 in pixels of the original image, inside it.
        labels: ``[G]`` int64 in ``0..C-1``.
        segmentations: ``G`` masks in pixels of the original image.
    """

    boxes: np.ndarray
    labels: np.ndarray
    segmentations: Sequence[Segmentation]


def annotated_image(store: AnnotationStore, index: int) -> np.ndarray:
    """``[h, w, 3]`` uint8 pixels of an image.

    Raises:
        UnreadableImageError: if it cannot be read.
        DataError: if it has another size than its annotations say.
    """
    path = store.image_path(index)
    try:
        image = load_image(path)
    except DataError as error:
        raise UnreadableImageError(f"{error} (image id {store.image_ids[index]})") from error
    height, width = (int(v) for v in store.image_sizes[index])
    if image.shape[:2] != (height, width):
        raise DataError(
            f"image {path} is {image.shape[1]} x {image.shape[0]} pixels, but its annotations say "
            f"{width} x {height}: boxes would not fit; correct the annotation file or restore the image"
        )
    return image


def annotated_objects(store: AnnotationStore, index: int, *, box_masks: bool = False) -> AnnotatedObjects:
    """What an image is trained on: no crowds; boxes clipped to the image, and left out where nothing is left.

    Args:
        store: annotations.
        index: row of the image.
        box_masks: an object without a mask has its box for one.

    Raises:
        DataError: for an object without a mask, or with one of another size than the image.
    """
    height, width = (int(v) for v in store.image_sizes[index])
    start, end = (int(v) for v in store.ann_offsets[index : index + 2])
    boxes = np.array(store.ann_boxes_xywh[start:end], dtype=np.float64)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.clip(0, [width, height, width, height])
    keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & ~np.asarray(store.ann_crowd[start:end], dtype=bool)
    rows = np.flatnonzero(keep)
    return AnnotatedObjects(
        boxes[rows],
        np.asarray(store.ann_labels[start:end], dtype=np.int64)[rows],
        [
            _box(boxes[row])
            if box_masks and not store.segmentation(start + row)
            else _segmentation(store, start + row, (height, width))
            for row in rows.tolist()
        ],
    )


def _box(box: np.ndarray) -> Segmentation:
    left, top, right, bottom = box.tolist()
    return [np.array([[left, top], [right, top], [right, bottom], [left, bottom]])]


def _segmentation(store: AnnotationStore, annotation: int, image_hw: tuple[int, int]) -> Segmentation:
    segmentation = store.segmentation(annotation)
    if not segmentation:
        raise DataError(f"annotation {store.ann_ids[annotation]} has no mask: {MASKS_NEEDED}")
    if isinstance(segmentation, dict) and tuple(segmentation["size"]) != image_hw:
        raise DataError(
            f"annotation {store.ann_ids[annotation]}: its mask's size is {segmentation['size']}, the image's "
            f"[height, width] is {list(image_hw)}"
        )
    return segmentation
