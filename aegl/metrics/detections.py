"""Detections of a whole split as flat arrays: the one form in which models, files and scoring exchange them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aegl.errors import DataError
from aegl.metrics import results_json, results_write
from aegl.metrics.rle import MaskColumn, pixel_counts
from aegl.progress import SilentProgress

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.progress import Progress


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
    def from_results_json(
        cls, path: str | Path, store: AnnotationStore, progress: Progress | None = None
    ) -> DetectionTable:
        """Read a COCO or LVIS results file; memory is that of the table and a few megabytes.

        Raises:
            DataError: naming file, record number (from 0) and reason: no or corrupt JSON, an image or category id that
                ``store`` lacks, a missing or non-finite score or box, a mask of a wrong size or with broken runs.
        """
        return cls(**results_json.read(Path(path), store, progress or SilentProgress()))

    def to_results_json(self, path: str | Path, store: AnnotationStore) -> None:
        """Write a results file that the official packages read; floats keep their exact value."""
        results_write.write(Path(path), store, self)

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
        if len(self) and np.bincount(self.image_index).max() <= max_det:
            return np.arange(len(self))
        order = np.lexsort((-self.score, self.image_index))
        image = self.image_index[order]
        rank = np.arange(len(order)) - np.searchsorted(image, image, side="left")
        return np.sort(order[rank < max_det])

    def top_per_image(self, max_det: int) -> DetectionTable:
        """Only the ``max_det`` best detections of every image; among equal scores the earlier ones stay."""
        rows = self.top_rows(max_det)
        return self if len(rows) == len(self) else self.take(rows)

    def areas(self, rows: np.ndarray) -> np.ndarray:
        """Float64 area that decides the size range of the detections of ``rows`` (see ``boxes_given``)."""
        if self.boxes_given or self.masks is None:
            return np.asarray(self.boxes_xywh_orig[rows, 2] * self.boxes_xywh_orig[rows, 3])
        return pixel_counts(self.masks.take(rows))[0].astype(np.float64)

    @classmethod
    def concatenate(cls, tables: Sequence[DetectionTable]) -> DetectionTable:
        """All detections of several tables, in order; an empty table fits every other.

        Raises:
            DataError: if some tables carry masks and others do not.
        """
        filled = [t for t in tables if len(t)] or list(tables[:1])
        if not filled:
            none = np.zeros(0, dtype=np.int32)
            return cls(none, none, np.zeros(0), np.zeros((0, 4)))
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
    _masks: list[bytes] = field(default_factory=list, init=False)

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
            )
        )
        self._masks += masks or ()

    def build(self) -> DetectionTable:
        """The table of everything appended so far."""
        table = DetectionTable.concatenate(self._images)
        return replace(table, masks=MaskColumn.from_counts(self._masks) if self.with_masks else None)
