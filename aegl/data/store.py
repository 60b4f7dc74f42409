"""Annotations of one split as flat arrays on disk, opened by memory map and shared by all processes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aegl.data.categories import CategoryTable
from aegl.errors import DataError

FORMAT_VERSION = 3
META_FILE = "meta.json"
NO_MASK, POLYGONS, RLE = 0, 1, 2
"""Kinds of segmentation."""
LVIS_PREFIXES = ("COCO_val2014_", "COCO_train2014_", "COCO_val2017_", "COCO_train2017_")
"""What LVIS v0.5 puts before the names of COCO's files; those of COCO 2014 really begin so."""

COLUMNS = (
    "image_ids",
    "image_sizes",
    "image_name_offsets",
    "image_name_bytes",
    "ann_offsets",
    "ann_ids",
    "ann_labels",
    "ann_boxes_xywh",
    "ann_areas",
    "ann_crowd",
    "ann_ignore",
    "mask_kind",
    "ring_offsets",
    "point_offsets",
    "points",
    "rle_offsets",
    "rle_bytes",
    "rle_sizes",
    "neg_offsets",
    "neg_values",
    "not_exhaustive_offsets",
    "not_exhaustive_values",
)


class AnnotationStore:
    """Read-only annotations of ``I`` images with ``A`` annotations, sorted by image.

    Attributes:
        image_ids: ``[I]`` int64, ids of the file.
        image_sizes: ``[I, 2]`` int32, height and width.
        ann_offsets: ``[I + 1]`` int64, where each image's annotations begin.
        ann_ids: ``[A]`` int64.
        ann_labels: ``[A]`` int32 in ``0..C-1``.
        ann_boxes_xywh: ``[A, 4]`` float64, original pixels, exactly as in the file.
        ann_areas: ``[A]`` float64, exactly as in the file (width times height where it has none).
        ann_crowd: ``[A]`` bool.
        ann_ignore: ``[A]`` bool.
        categories: the classes.
        content_hash: SHA-256 of the annotation file.
        federated: whether only some classes were looked for in each image (the file has ``neg_category_ids``).
        source: the annotation file.
    """

    image_ids: np.ndarray
    image_sizes: np.ndarray
    ann_offsets: np.ndarray
    ann_ids: np.ndarray
    ann_labels: np.ndarray
    ann_boxes_xywh: np.ndarray
    ann_areas: np.ndarray
    ann_crowd: np.ndarray
    ann_ignore: np.ndarray

    def __init__(self, columns: Mapping[str, np.ndarray], meta: Mapping[str, Any], folder: Path) -> None:
        self._columns = dict(columns)
        self._folder = folder
        for name, column in columns.items():
            if name.startswith(("image_ids", "image_sizes", "ann_")):
                setattr(self, name, column)
        self.categories = CategoryTable.from_dict(meta["categories"])
        self.content_hash: str = meta["content_hash"]
        self.federated: bool = meta["federated"]
        self.source = Path(meta["source"])
        self.image_dirs = tuple(Path(folder) for folder in meta["image_dirs"])

    @classmethod
    def open(cls, folder: str | Path) -> AnnotationStore:
        """Open a store that :func:`aegl.data.build.build_store` has written; reads no annotation yet.

        Raises:
            DataError: if the folder is no complete store of this format.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
            if meta["format_version"] != FORMAT_VERSION:
                raise DataError(f"{folder}: annotation store of format {meta['format_version']}; delete it to rebuild")
            columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in COLUMNS}
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder}: not a complete annotation store ({error}); delete it to rebuild it") from error
        return cls(columns, meta, folder)

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes map the same pages instead of receiving copies.
        return (_reopen, (self._folder, self.categories))

    def with_names(self, names: Sequence[str]) -> AnnotationStore:
        """The same annotations with other class names."""
        renamed = AnnotationStore.open(self._folder)
        renamed.categories = replace(self.categories, names=tuple(names))
        return renamed

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    @property
    def num_annotations(self) -> int:
        """Number of annotations ``A``, crowds included."""
        return len(self.ann_ids)

    @property
    def num_classes(self) -> int:
        """Number of classes ``C``."""
        return len(self.categories)

    @property
    def ann_image(self) -> np.ndarray:
        """``[A]`` int64 row of each annotation's image."""
        return np.repeat(np.arange(len(self)), np.diff(self.ann_offsets))

    def images_without_objects(self) -> np.ndarray:
        """``[I]`` bool, true for images that hold nothing, or nothing but crowds."""
        single = self.ann_image[~np.asarray(self.ann_crowd)]
        return np.bincount(single, minlength=len(self)) == 0

    def annotations_of(self, image: int) -> slice:
        """Rows of an image's annotations."""
        return slice(int(self.ann_offsets[image]), int(self.ann_offsets[image + 1]))

    def image_name(self, image: int) -> str:
        """Path of an image, by its ``file_name`` or ``coco_url``, relative to the folder of the images."""
        start, stop = self._columns["image_name_offsets"][image : image + 2]
        return bytes(self._columns["image_name_bytes"][start:stop]).decode()

    def image_candidates(self, image: int) -> list[Path]:
        """Every path that an image is looked for at, most specific first."""
        name = Path(self.image_name(image))
        parts = dict.fromkeys((name, Path(name.name), Path(without_lvis_prefix(name.name))))
        return [folder / part for folder in self.image_dirs for part in parts]

    def image_path(self, image: int) -> Path:
        """Path of an image file that exists.

        Raises:
            DataError: if it is nowhere, naming where it was looked for.
        """
        candidates = self.image_candidates(image)
        for path in candidates:
            if path.is_file():
                return path
        looked = ", ".join(str(path) for path in candidates[:4])
        raise DataError(
            f"image {self.image_ids[image]} ({self.image_name(image)}) of {self.source}: no such file; looked for "
            f"{looked}. Name the images' folder with `images:` in a data YAML, or fetch them"
        )

    def segmentation(self, annotation: int) -> list[np.ndarray] | dict[str, Any] | None:
        """An annotation's mask in original pixels.

        Returns:
            A list of ``[k, 2]`` float64 polygons (x, y), or a compressed RLE ``{"size": [h, w], "counts": bytes}``,
            or None.
        """
        kind = self._columns["mask_kind"][annotation]
        if kind == POLYGONS:
            first, last = self._columns["ring_offsets"][annotation : annotation + 2]
            bounds = self._columns["point_offsets"][first : last + 1]
            points = self._columns["points"]
            return [np.asarray(points[a:b]) for a, b in itertools.pairwise(bounds)]
        if kind == RLE:
            start, stop = self._columns["rle_offsets"][annotation : annotation + 2]
            size = self._columns["rle_sizes"][annotation]
            return {"size": [int(v) for v in size], "counts": bytes(self._columns["rle_bytes"][start:stop])}
        return None

    @property
    def mask_kinds(self) -> np.ndarray:
        """``[A]`` uint8: :data:`NO_MASK`, :data:`POLYGONS` or :data:`RLE`."""
        return self._columns["mask_kind"]

    def polygon_corners(self) -> tuple[np.ndarray, np.ndarray]:
        """``[P]`` row of each polygon's annotation and ``[P]`` number of its corners, over all polygons."""
        rows = np.repeat(np.arange(self.num_annotations), np.diff(self._columns["ring_offsets"]))
        return rows, np.diff(self._columns["point_offsets"])

    def verified(self, image: int) -> np.ndarray:
        """``[C]`` bool, true for classes of which an image holds no more instances than are annotated.

        In federated data those are the classes known to be absent and the annotated ones, less those that are not
        exhaustively annotated; of all others nobody knows. Otherwise every class is verified.
        """
        if not self.federated:
            return np.ones(self.num_classes, dtype=bool)
        verified = np.zeros(self.num_classes, dtype=bool)
        verified[self.ann_labels[self.annotations_of(image)]] = True
        verified[self.neg_labels(image)] = True
        verified[self.not_exhaustive_labels(image)] = False
        return verified

    def neg_labels(self, image: int) -> np.ndarray:
        """``[k]`` int32 labels known to be absent from an image."""
        return self._ragged("neg", image)

    def not_exhaustive_labels(self, image: int) -> np.ndarray:
        """``[k]`` int32 labels of which an image may hold more than is annotated."""
        return self._ragged("not_exhaustive", image)

    def _ragged(self, name: str, image: int) -> np.ndarray:
        start, stop = self._columns[f"{name}_offsets"][image : image + 2]
        return np.asarray(self._columns[f"{name}_values"][start:stop])


def without_lvis_prefix(name: str) -> str:
    """The file name in COCO 2017 of an image that LVIS v0.5 names."""
    return next((name.removeprefix(prefix) for prefix in LVIS_PREFIXES if name.startswith(prefix)), name)


def _reopen(folder: Path, categories: CategoryTable) -> AnnotationStore:
    store = AnnotationStore.open(folder)
    store.categories = categories
    return store
