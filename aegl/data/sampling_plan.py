"""What a sampler will do to each frequency band, before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aegl.data.samplers import EpochSampler
from aegl.data.store import AnnotationStore

_LISTED = 10
_NOTICEABLE = 1.05
"""A class seen so many times as often as it stands in the data is boosted along."""


def sampling_plan(
    store: AnnotationStore, sampler: EpochSampler, class_band: np.ndarray, band_names: Sequence[str]
) -> dict[str, Any]:
    """Expected figures of an epoch.

    A sampler repeats images, and with a rare class everything else in its images: ``boosted_along`` are the classes
    that would not be repeated for their own sake and are seen more often all the same, by how much they are.

    Args:
        store: the training split.
        sampler: as in training.
        class_band: ``[C]`` int64 band of each class.
        band_names: names of the bands.

    Returns:
        ``{"images", "images_left_out", "images_per_epoch", "bands": {band: {"classes", "instances", "instances_seen",
        "mean_repeat"}}, "boosted_along": [{"class", "band", "instances", "instances_seen", "repeat"}]}``; the repeat
        of a class is instances seen over instances, that of a band the mean over its classes that occur.
    """
    factors = sampler.rule.expected_repeats
    single = ~np.asarray(store.ann_crowd)
    labels, image = np.asarray(store.ann_labels)[single], store.ann_image[single]
    there = np.bincount(labels, minlength=store.num_classes)
    seen = np.bincount(labels, weights=factors[image], minlength=store.num_classes)
    repeat = np.divide(seen, there, out=np.zeros_like(seen), where=there > 0)
    bands = {}
    for index, name in enumerate(band_names):
        inside = class_band == index
        occurring = inside & (there > 0)
        bands[name] = {
            "classes": int(inside.sum()),
            "instances": int(there[inside].sum()),
            "instances_seen": round(float(seen[inside].sum()), 1),
            "mean_repeat": round(float(repeat[occurring].mean()), 3) if occurring.any() else None,
        }
    own = sampler.rule.classes
    not_meant = (own <= 1 if len(own) else np.ones(store.num_classes, dtype=bool)) & (repeat >= _NOTICEABLE)
    boosted = np.flatnonzero(not_meant)
    boosted = boosted[np.argsort(-repeat[boosted], kind="stable")][:_LISTED]
    return {
        "images": len(store),
        "images_left_out": int((factors == 0).sum()),
        "images_per_epoch": round(sampler.epoch_length, 1),
        "bands": bands,
        "boosted_along": [
            {
                "class": store.categories.names[label],
                "band": band_names[class_band[label]],
                "instances": int(there[label]),
                "instances_seen": round(float(seen[label]), 1),
                "repeat": round(float(repeat[label]), 3),
            }
            for label in boosted.tolist()
        ],
    }
