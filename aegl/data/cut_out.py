"""Cutting the objects of an annotated set out of their images, as segments to paste."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

from aegl.data.annotated import annotated_image
from aegl.data.convert.files import new_folder
from aegl.data.masks import to_rle
from aegl.data.store import AnnotationStore
from aegl.errors import DataError
from aegl.progress import Progress


def cut_out(store: AnnotationStore, output: Path, *, per_class: int, data: str, progress: Progress) -> dict[str, Any]:
    """Write ``<category id>/<annotation id>.png`` into a new folder: RGBA, tight around the mask, which is its alpha.

    Of each class the largest objects are taken, since small ones blur when they are pasted larger. Crowds are left out,
    and objects whose mask covers no pixel.

    Args:
        store: the annotations.
        output: the new folder.
        per_class: most segments of a class.
        data: name of the data set, for the record.
        progress: told how far it is.

    Returns:
        ``{"data", "output", "per_class", "segments", "classes", "classes_without_segments"}``.

    Raises:
        ConfigError: if ``output`` is not new.
        DataError: if an image cannot be used, or no object has a mask.
    """
    chosen = largest(store, per_class)
    written = np.zeros(store.num_classes, dtype=np.int64)
    with new_folder(output) as folder:
        progress.start("cut out segments", len(chosen), "object")
        image_of = store.ann_image[chosen]
        for image in np.unique(image_of).tolist():
            pixels = annotated_image(store, image)
            for annotation in chosen[image_of == image].tolist():
                written[store.ann_labels[annotation]] += _write(store, annotation, pixels, folder)
                progress.update()
        progress.finish()
        if not written.any():
            raise DataError(f"{store.source}: no object has a mask to be cut out by")
    return {
        "data": data,
        "output": str(output),
        "per_class": per_class,
        "segments": int(written.sum()),
        "classes": int((written > 0).sum()),
        "classes_without_segments": int((written == 0).sum()),
    }


def largest(store: AnnotationStore, per_class: int) -> np.ndarray:
    """Rows of each class's largest annotations with a mask (``[n]`` int64, rising); the earlier of equal ones."""
    rows = np.flatnonzero(~np.asarray(store.ann_crowd) & (np.asarray(store.mask_kinds) > 0))
    labels, areas = np.asarray(store.ann_labels)[rows], np.asarray(store.ann_areas)[rows]
    order = np.lexsort((-areas, labels))  # stable: by label, then from the largest
    ranked = labels[order]
    rank = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return np.sort(rows[order[rank < per_class]])


def _write(store: AnnotationStore, annotation: int, image: np.ndarray, folder: Path) -> bool:
    """Cut out one object; false if its mask covers no pixel."""
    segmentation = store.segmentation(annotation)
    mask = mask_utils.decode(to_rle(segmentation or [], image.shape[:2]))
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return False
    crop = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    alpha = 255 * mask[crop][..., None]
    pixels = np.concatenate([image[crop] * (alpha > 0), alpha], axis=2)
    place = folder / str(store.categories.ids[store.ann_labels[annotation]])
    place.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(place / f"{store.ann_ids[annotation]}.png")
    return True
