"""Splitting one annotated set into two, so that both hold every class as evenly as can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from aegl.data.convert import coco_lvis
from aegl.data.convert.files import new_folder
from aegl.data.convert.model import of_store
from aegl.data.occurrence import occurrences
from aegl.data.store import AnnotationStore
from aegl.progress import Progress


def split_images(store: AnnotationStore, fraction: float, seed: int) -> np.ndarray:
    """``[I]`` bool, true for images of the val split.

    Iterative stratification (Sechidis et al. 2011), rarest class first: of the images with a class that no rarer one
    has placed yet, so many go to val that it has ``fraction`` of all images with that class, rounded, but at least one
    and not the last one. Images without objects are shared out at the end. A pure function of file, fraction and seed.
    """
    rng = np.random.default_rng(seed)
    single = ~np.asarray(store.ann_crowd)
    image, label = occurrences(store.ann_image[single], np.asarray(store.ann_labels)[single], store.num_classes)
    by_class = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[by_class], np.arange(store.num_classes + 1))
    counts = np.diff(starts)
    placed, val = np.zeros(len(store), dtype=bool), np.zeros(len(store), dtype=bool)
    for c in np.argsort(counts, kind="stable"):
        holders = image[by_class[starts[c] : starts[c + 1]]]
        free = holders[~placed[holders]]
        wanted = _share(len(holders), fraction) - int(val[holders].sum())
        val[rng.permutation(free)[: max(wanted, 0)]] = True
        placed[free] = True
    free = np.flatnonzero(~placed)
    val[rng.permutation(free)[: round(fraction * len(free))]] = True
    return val


def split(
    store: AnnotationStore, output: Path, *, fraction: float, seed: int, data: str, progress: Progress
) -> dict[str, Any]:
    """Write ``train.json``, ``val.json`` and a ``data.yaml`` into a new folder, in the format of the store's file.

    Returns:
        ``{"data", "output", "fraction", "seed", "splits": {split: {"images", "instances", "classes",
        "classes_without_instances"}}}``.

    Raises:
        ConfigError: if ``output`` is not new.
    """
    val = split_images(store, fraction, seed)
    rows = {"train": np.flatnonzero(~val), "val": np.flatnonzero(val)}
    with new_folder(output) as folder:
        splits = {name: of_store(store, images) for name, images in rows.items()}
        coco_lvis.write(splits, folder, "lvis" if store.federated else "coco", progress)
    single = ~np.asarray(store.ann_crowd)
    counts = {}
    for name, images in rows.items():
        inside = single & np.isin(store.ann_image, images)
        of_class = np.bincount(np.asarray(store.ann_labels)[inside], minlength=store.num_classes)
        counts[name] = {
            "images": len(images),
            "instances": int(inside.sum()),
            "classes": store.num_classes,
            "classes_without_instances": int((of_class == 0).sum()),
        }
    return {"data": data, "output": str(output), "fraction": fraction, "seed": seed, "splits": counts}


def _share(number: int, fraction: float) -> int:
    """How many of so many images go to val."""
    return 0 if number < 2 else min(max(round(fraction * number), 1), number - 1)
