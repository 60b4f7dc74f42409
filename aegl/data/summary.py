"""Counts of a data set by split, class and frequency band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aegl.data.source import DataSource
from aegl.data.store import AnnotationStore

_SMALL, _MEDIUM = 32.0**2, 96.0**2
_EXTREMES = 5


def summarize_source(source: DataSource) -> dict[str, Any]:
    """Counts of every split: images, annotations, classes; per band; sizes; the most and least frequent classes.

    The bands are those of the training split, for val too, where there is one.

    Raises:
        DataError: if a file is missing or broken, or the splits have different classes.
    """
    stores = {split: source.open(split) for split in source.files}
    class_band = source.class_band("val" if "val" in stores else "train")
    return {
        "data": source.name,
        "protocol": source.protocol,
        **{split: summarize(store, class_band, source.bands.names) for split, store in stores.items()},
    }


def summarize(store: AnnotationStore, class_band: np.ndarray, band_names: Sequence[str]) -> dict[str, Any]:
    """Counts of one split; sizes in square pixels as in COCO (small below 32^2, large from 96^2).

    Args:
        store: the split. Crowds count as annotations, but as no instances of their class.
        class_band: ``[C]`` int64 band of each class.
        band_names: names of the bands.
    """
    kept = ~np.asarray(store.ann_crowd)
    counts = np.bincount(np.asarray(store.ann_labels)[kept], minlength=store.num_classes)
    areas = np.asarray(store.ann_areas)
    order = np.argsort(-counts, kind="stable")
    named = [f"{store.categories.names[label]} {counts[label]}" for label in order]
    return {
        "file": str(store.source),
        "images": len(store),
        "images_with_objects": len(np.unique(store.ann_image[kept])),
        "annotations": store.num_annotations,
        "classes": store.num_classes,
        "classes_without_instances": int((counts == 0).sum()),
        "instances_per_class": {
            "max": int(counts.max(initial=0)),
            "median": float(np.median(counts)) if len(counts) else 0.0,
            "min": int(counts.min()) if len(counts) else 0,
        },
        "bands": {
            name: {"classes": int((class_band == index).sum()), "instances": int(counts[class_band == index].sum())}
            for index, name in enumerate(band_names)
        },
        "sizes": {
            "small": int((areas < _SMALL).sum()),
            "medium": int(((areas >= _SMALL) & (areas < _MEDIUM)).sum()),
            "large": int((areas >= _MEDIUM).sum()),
        },
        "most_frequent": named[:_EXTREMES],
        "rarest": named[::-1][:_EXTREMES],
        "federated": store.federated,
    }
