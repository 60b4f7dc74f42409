"""What every format can be read into and written from: one split as pictures with objects, gone through one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aegl.data.categories import CategoryTable
from aegl.data.store import AnnotationStore

Polygons = list[np.ndarray]
"""``[k, 2]`` float64 corners, x and y in pixels."""


@dataclass(frozen=True)
class Thing:
    """One annotated object.

    Args:
        label: its class, ``0..C-1``.
        box: x, y, width, height in pixels.
        area: in square pixels.
        polygons: its outline, or none.
        rle: run lengths of its mask in pycocotools' compressed form, where it has no polygons.
        crowd: whether it is a group that was not taken apart.
        ignore: whether it counts neither as found nor as missed (VOC: ``difficult``).
        id: of the annotation, where its format has any.
    """

    label: int
    box: tuple[float, float, float, float]
    area: float
    polygons: Polygons = field(default_factory=list)
    rle: bytes | None = None
    crowd: bool = False
    ignore: bool = False
    id: int | None = None


@dataclass(frozen=True)
class Picture:
    """One image.

    Args:
        id: unique in its split.
        name: path of its file below the images' folder.
        height: in pixels.
        width: in pixels.
        things: its objects.
        neg: classes known to be absent, in federated data.
        not_exhaustive: classes of which it may hold more, in federated data.
        find: its file, or None where there is none.
    """

    id: int
    name: str
    height: int
    width: int
    things: Sequence[Thing]
    neg: Sequence[int] = ()
    not_exhaustive: Sequence[int] = ()
    find: Callable[[], Path | None] = lambda: None


@dataclass(frozen=True)
class Annotated:
    """One split.

    Args:
        categories: the classes.
        pictures: begins to go through the images.
        count: number of images.
        image_dirs: folders that the images' names are below.
        federated: whether only some classes were looked for in each image.
    """

    categories: CategoryTable
    pictures: Callable[[], Iterator[Picture]]
    count: int
    image_dirs: tuple[Path, ...] = ()
    federated: bool = False


def of_store(store: AnnotationStore, images: np.ndarray | None = None, kept: np.ndarray | None = None) -> Annotated:
    """A store, or those of its images (rows) and annotations (``[A]`` bool) that are named."""
    rows = np.arange(len(store)) if images is None else images

    def pictures() -> Iterator[Picture]:
        for row in rows.tolist():
            yield _picture(store, row, kept)

    return Annotated(store.categories, pictures, len(rows), store.image_dirs, store.federated)


def _picture(store: AnnotationStore, row: int, kept: np.ndarray | None) -> Picture:
    height, width = store.image_sizes[row].tolist()
    own = store.annotations_of(row)
    annotations = [a for a in range(own.start, own.stop) if kept is None or kept[a]]

    def find() -> Path | None:
        return next((path for path in store.image_candidates(row) if path.is_file()), None)

    return Picture(
        int(store.image_ids[row]),
        store.image_name(row),
        height,
        width,
        [_thing(store, a) for a in annotations],
        store.neg_labels(row).tolist(),
        store.not_exhaustive_labels(row).tolist(),
        find,
    )


def _thing(store: AnnotationStore, row: int) -> Thing:
    segmentation = store.segmentation(row)
    x, y, width, height = store.ann_boxes_xywh[row].tolist()
    return Thing(
        int(store.ann_labels[row]),
        (x, y, width, height),
        float(store.ann_areas[row]),
        segmentation if isinstance(segmentation, list) else [],
        segmentation["counts"] if isinstance(segmentation, dict) else None,
        bool(store.ann_crowd[row]),
        bool(store.ann_ignore[row]),
        int(store.ann_ids[row]),
    )
