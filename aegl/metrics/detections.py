"""Detections of a whole split as flat arrays: the one form in which models, files and scoring exchange them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.errors import DataError
from aegl.metrics import results_json
from aegl.metrics.rle import MaskColumn, pixel_counts

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore


@dataclass(frozen=True)
class DetectionTable:
    """``D`` detections in the order they were found; that order breaks ties of score, as in the official packages.

    Args:
        image_index: ``[D]`` int32, row of the image in its annotation store.
        label: ``[D]`` int32, ``0..C-1``.
        score: ``[D]`` float64.
        boxes_xywh_orig: ``[D, 4]`` float64, pixels of the original image.
        masks: ``D`` compressed masks at the size of their images, or None for boxes only.
        boxes_given: False where the boxes were derived from the masks. The official packages then take a detection's
            size range from its mask's area; where boxes are given they take the box's area, for mask scores too.
    """

    image_index: np.ndarray
    label: np.ndarray
    score: np.ndarray
    boxes_xywh_orig: np.ndarray
    masks: MaskColumn | None = None
    boxes_given: bool = True

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.image_index)

    @classmethod
    def from_results_json(cls, path: str | Path, store: AnnotationStore) -> DetectionTable:
        """Read a COCO or LVIS results file.

        Raises:
            DataError: naming file, record number (from 0) and reason: no or corrupt JSON, an image or category id that
                ``store`` lacks, a missing or non-finite score or box, a mask of a wrong size or with broken runs.
        """
        return cls(**results_json.read(Path(path), store))

    def to_results_json(self, path: str | Path, store: AnnotationStore) -> None:
        """Write a results file that the official packages read; floats keep their exact value."""
        results_json.write(Path(path), store, vars(self))

    def take(self, rows: np.ndarray) -> DetectionTable:
        """The detections of ``rows`` (int64 indices), in that order."""
        return DetectionTable(
            self.image_index[rows],
            self.label[rows],
            self.score[rows],
            self.boxes_xywh_orig[rows],
            None if self.masks is None else self.masks.take(rows),
            self.boxes_given,
        )

    def top_rows(self, max_det: int) -> np.ndarray:
        """Rows of the ``max_det`` best detections of every image over all classes, in the table's order (int64)."""
        order = np.lexsort((-self.score, self.image_index))
        image = self.image_index[order]
        rank = np.arange(len(order)) - np.searchsorted(image, image, side="left")
        return np.sort(order[rank < max_det])

    def top_per_image(self, max_det: int) -> DetectionTable:
        """Only the ``max_det`` best detections of every image; among equal scores the earlier ones stay."""
        rows = self.top_rows(max_det)
        return self if len(rows) == len(self) else self.take(rows)

    def areas(self) -> np.ndarray:
        """``[D]`` float64 area that decides a detection's size range (see ``boxes_given``)."""
        if self.boxes_given or self.masks is None:
            return np.asarray(self.boxes_xywh_orig[:, 2] * self.boxes_xywh_orig[:, 3])
        return pixel_counts(self.masks)[0].astype(np.float64)

    def save(self, path: str | Path) -> None:
        """Write the table as one uncompressed ``.npz`` shard."""
        columns: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "masks"}
        if self.masks is not None:
            columns |= {"mask_data": self.masks.data, "mask_offsets": self.masks.offsets}
        with Path(path).open("wb") as file:
            np.savez(file, **columns)

    @classmethod
    def load(cls, path: str | Path) -> DetectionTable:
        """Read a shard written by :meth:`save`. Raises :class:`DataError` if it is missing or is none."""
        try:
            with np.load(path, allow_pickle=False) as shard:
                columns = dict(shard)
            masks = (
                MaskColumn(columns.pop("mask_data"), columns.pop("mask_offsets")) if "mask_data" in columns else None
            )
            return cls(masks=masks, boxes_given=bool(columns.pop("boxes_given")), **columns)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: not a shard of detections written by aegl ({error})") from error

    @classmethod
    def concatenate(cls, tables: Sequence[DetectionTable]) -> DetectionTable:
        """All detections of several tables, in order; an empty table fits every other.

        Raises:
            DataError: if some tables carry masks and others do not.
        """
        filled = [t for t in tables if len(t)] or list(tables[:1])
        if not filled:
            return DetectionTableBuilder(with_masks=False).build()
        columns = [t.masks for t in filled if t.masks is not None]
        if len(columns) not in (0, len(filled)):
            raise DataError("detections with masks and without cannot be merged: score them separately")
        return cls(
            np.concatenate([t.image_index for t in filled]),
            np.concatenate([t.label for t in filled]),
            np.concatenate([t.score for t in filled]),
            np.concatenate([t.boxes_xywh_orig for t in filled]),
            MaskColumn.concatenate(columns) if columns else None,
            all(t.boxes_given for t in filled),
        )


@dataclass
class DetectionTableBuilder:
    """Collects detections image by image.

    Args:
        with_masks: whether every image brings masks.
    """

    with_masks: bool
    _images: list[DetectionTable] = field(default_factory=list, init=False)

    def append(
        self,
        image_index: int,
        labels: np.ndarray,
        scores: np.ndarray,
        boxes_xywh_orig: np.ndarray,
        masks: Sequence[bytes] | None = None,
    ) -> None:
        """Add one image's ``n`` detections.

        Args:
            image_index: row of the image in its store.
            labels: ``[n]`` integers in ``0..C-1``.
            scores: ``[n]`` floats.
            boxes_xywh_orig: ``[n, 4]`` floats, pixels of the original image.
            masks: ``n`` compressed RLE ``counts`` at the size of the original image, if the builder takes masks.
        """
        n = len(labels)
        if (masks is not None) != self.with_masks:
            raise ValueError(f"image {image_index}: the builder was made with_masks={self.with_masks}")
        if len(scores) != n or np.shape(boxes_xywh_orig) != (n, 4) or (masks is not None and len(masks) != n):
            raise ValueError(f"image {image_index}: labels, scores, boxes and masks differ in length")
        self._images.append(
            DetectionTable(
                np.full(n, image_index, dtype=np.int32),
                np.asarray(labels, dtype=np.int32),
                np.asarray(scores, dtype=np.float64),
                np.asarray(boxes_xywh_orig, dtype=np.float64),
                None if masks is None else MaskColumn.from_counts(masks),
            )
        )

    def build(self) -> DetectionTable:
        """The table of everything appended so far."""
        if self._images:
            return DetectionTable.concatenate(self._images)
        none = np.zeros(0, dtype=np.int32)
        masks = MaskColumn.from_counts([]) if self.with_masks else None
        return DetectionTable(none, none, np.zeros(0), np.zeros((0, 4)), masks)
