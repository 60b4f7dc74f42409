"""What scoring reads of the ground truth, as flat arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.errors import DataError
from aegl.metrics.rle import encode

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore


@dataclass(frozen=True)
class GroundTruth:
    """Annotations of a split, sorted by image (within an image in the file's order).

    Args:
        image_ids: ``[I]`` int64.
        image_sizes: ``[I, 2]`` height, width.
        num_classes: ``C``.
        ann_ids: ``[A]`` int64.
        ann_image: ``[A]`` int64, row of the image.
        ann_labels: ``[A]`` int64 in ``0..C-1``.
        ann_boxes_xywh: ``[A, 4]`` float64, original pixels.
        ann_areas: ``[A]`` float64.
        ann_crowd: ``[A]`` bool.
        ann_ignore: ``[A]`` bool, the file's own ``ignore`` flags (LVIS honours them, COCO overwrites them by crowd).
        federated: whether only some classes were looked for in each image.
        negative: sorted ``image * C + label`` of classes known to be absent; empty unless federated.
        not_exhaustive: sorted ``image * C + label`` of classes not annotated exhaustively; empty unless federated.
        segmentation: polygons or RLE of one annotation, or None.
    """

    image_ids: np.ndarray
    image_sizes: np.ndarray
    num_classes: int
    ann_ids: np.ndarray
    ann_image: np.ndarray
    ann_labels: np.ndarray
    ann_boxes_xywh: np.ndarray
    ann_areas: np.ndarray
    ann_crowd: np.ndarray
    ann_ignore: np.ndarray
    federated: bool
    negative: np.ndarray
    not_exhaustive: np.ndarray
    segmentation: Callable[[int], Any]

    @property
    def image_order(self) -> np.ndarray:
        """``[I]`` int64 rank of every image by its id: the official packages go through images in that order."""
        rank = np.empty(len(self.image_ids), dtype=np.int64)
        rank[np.argsort(self.image_ids, kind="stable")] = np.arange(len(self.image_ids))
        return rank

    def counts(self, annotation: int) -> bytes:
        """The annotation's mask as RLE ``counts``. Raises :class:`DataError` if it has none that can be used."""
        height, width = self.image_sizes[self.ann_image[annotation]].tolist()
        try:
            return encode(self.segmentation(annotation), height, width)
        except (ValueError, TypeError) as error:
            raise DataError(f"ground truth annotation {self.ann_ids[annotation]}: {error}") from error

    @classmethod
    def from_store(cls, store: AnnotationStore) -> GroundTruth:
        """View of a store; nothing but the small columns is copied."""
        num_images, num_classes = len(store.image_ids), len(store.categories.ids)
        per_image = np.diff(store.ann_offsets)
        federated = bool(store.federated)
        return cls(
            image_ids=np.asarray(store.image_ids),
            image_sizes=np.asarray(store.image_sizes),
            num_classes=num_classes,
            ann_ids=np.asarray(store.ann_ids),
            ann_image=np.repeat(np.arange(num_images), per_image),
            ann_labels=np.asarray(store.ann_labels, dtype=np.int64),
            ann_boxes_xywh=np.asarray(store.ann_boxes_xywh),
            ann_areas=np.asarray(store.ann_areas),
            ann_crowd=np.asarray(store.ann_crowd, dtype=bool),
            ann_ignore=np.asarray(store.ann_ignore, dtype=bool),
            federated=federated,
            negative=_keys(store.neg_labels, num_images if federated else 0, num_classes),
            not_exhaustive=_keys(store.not_exhaustive_labels, num_images if federated else 0, num_classes),
            segmentation=store.segmentation,
        )


def _keys(labels_of: Callable[[int], np.ndarray], num_images: int, num_classes: int) -> np.ndarray:
    keys = [np.asarray(labels_of(image), dtype=np.int64) + image * num_classes for image in range(num_images)]
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *keys]))
