"""Counts of a data set by split, class and frequency band."""

from __future__ import annotations

from typing import Any

import numpy as np

from aegl.data.bands import Bands, class_statistics
from aegl.data.source import DataSource
from aegl.data.store import AnnotationStore

_SMALL, _MEDIUM = 32.0**2, 96.0**2
_EXTREMES = 5


def summarize_source(source: DataSource) -> dict[str, Any]:
    """Counts of every split: images, annotations, classes; per band; sizes; the most and least frequent classes."""
    return {
        "data": source.name,
        "protocol": source.protocol,
        **{split: summarize(source.open(split), source.bands) for split in source.files},
    }


def summarize(store: AnnotationStore, bands: Bands) -> dict[str, Any]:
    """Counts of one split; sizes in square pixels as in COCO (small below 32^2, large from 96^2)."""
    statistics = class_statistics(store, bands)
    counts, band = statistics.instance_counts, statistics.class_band
    areas = np.asarray(store.ann_areas)
    order = np.argsort(-counts, kind="stable")
    named = [f"{store.categories.names[label]} {counts[label]}" for label in order]
    return {
        "images": len(store),
        "images_with_objects": statistics.num_images,
        "annotations": store.num_annotations,
        "classes": store.num_classes,
        "classes_without_instances": int((counts == 0).sum()),
        "instances_per_class": {
            "max": int(counts.max(initial=0)),
            "median": float(np.median(counts)) if len(counts) else 0.0,
            "min": int(counts.min()) if len(counts) else 0,
        },
        "bands": {
            name: {"classes": int((band == index).sum()), "instances": int(counts[band == index].sum())}
            for index, name in enumerate(bands.names)
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
