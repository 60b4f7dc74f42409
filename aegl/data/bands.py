"""Frequency bands of classes, and the counts they follow from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aegl.data.occurrence import images_per_class
from aegl.data.store import AnnotationStore
from aegl.errors import DataError
from aegl.longtail.statistics import ClassStatistics


@dataclass(frozen=True)
class Bands:
    """How classes are put into frequency bands.

    Args:
        names: names of the bands, rarest first.
        edges: largest count of each band but the last.
        by: what is counted per class in the training set.
        source: ``file`` takes the categories' ``frequency`` field, ``counts`` computes, ``auto`` takes the field where
            every class has one.
        low: how many bands, from the rarest, count as low-frequency.
    """

    names: tuple[str, ...] = ("r", "c", "f")
    edges: tuple[int, ...] = (10, 100)
    by: Literal["images", "instances"] = "images"
    source: Literal["auto", "file", "counts"] = "auto"
    low: int = 2

    def of_counts(self, counts: np.ndarray) -> np.ndarray:
        """``[C]`` counts to ``[C]`` int64 band indices; a count equal to an edge belongs to the rarer band."""
        return np.searchsorted(np.asarray(self.edges), counts, side="left").astype(np.int64)

    def of_field(self, frequency: Sequence[str]) -> np.ndarray:
        """``C`` band names to ``[C]`` int64 band indices. Raises :class:`DataError` for a name that is no band."""
        place = {name: index for index, name in enumerate(self.names)}
        unknown = sorted({name for name in frequency if name not in place})
        if unknown:
            raise DataError(
                f"the categories' frequency field has {', '.join(unknown)}, which are not among bands.names="
                f"{', '.join(self.names)}; name the bands accordingly, or give bands.source=counts"
            )
        return np.asarray([place[name] for name in frequency], dtype=np.int64)


def class_statistics(train: AnnotationStore, bands: Bands) -> ClassStatistics:
    """Counts and bands of a training set. Crowds are not trained on and do not count."""
    instances, images = _count(train)
    kept = ~np.asarray(train.ann_crowd)
    return ClassStatistics(
        instance_counts=instances,
        image_counts=images,
        num_images=len(np.unique(train.ann_image[kept])),
        class_band=_class_band(train, bands, instances, images),
        band_names=bands.names,
        low_bands=bands.low,
    )


def bands_without_training_set(store: AnnotationStore, bands: Bands) -> np.ndarray:
    """``[C]`` bands from an evaluation file alone.

    By its ``frequency`` field where :attr:`Bands.source` lets it count, else by the training counts it states, else,
    for want of better, by its own counts.

    Raises:
        DataError: if ``bands.source=file`` and it has no such field.
    """
    categories = store.categories
    stated = categories.image_counts if bands.by == "images" else categories.instance_counts
    instances, images = _count(store) if stated is None else (stated, stated)
    return _class_band(store, bands, instances, images)


def _class_band(store: AnnotationStore, bands: Bands, instances: np.ndarray, images: np.ndarray) -> np.ndarray:
    frequency = store.categories.frequency
    if bands.source == "file" and frequency is None:
        raise DataError(
            f"{store.source}: bands.source=file, but not every category has a `frequency`; give bands.source=counts"
        )
    # Bands by instances or of other names are not what the file's field is about.
    usable = frequency is not None and bands.by == "images" and set(frequency) <= set(bands.names)
    if bands.source == "file" or (bands.source == "auto" and usable):
        return bands.of_field(frequency or ())
    return bands.of_counts(images if bands.by == "images" else instances)


def _count(store: AnnotationStore) -> tuple[np.ndarray, np.ndarray]:
    """``[C]`` instances and ``[C]`` images per class."""
    kept = ~np.asarray(store.ann_crowd)
    labels = np.asarray(store.ann_labels)[kept].astype(np.int64)
    images = images_per_class(store.ann_image[kept], labels, store.num_classes)
    return np.bincount(labels, minlength=store.num_classes), images
