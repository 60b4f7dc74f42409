"""Detections on disk while a split is being evaluated: each process appends to files of its own, image by image.

Whatever interrupts it, the images written so far can be read again. ``<rank>.images`` says of which image there are how
many detections and is written last; records or characters beyond what it tells of are a torn write and left alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from aegl.errors import DataError, RunError
from aegl.metrics.detections import DetectionTable
from aegl.metrics.rle import MaskColumn

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore

META_FILE = "meta.json"
_FORMAT = 1
_IMAGE = np.dtype([("image", "<i4"), ("detections", "<i4")])
_RECORD = np.dtype([("label", "<i4"), ("mask_length", "<i4"), ("score", "<f8"), ("box", "<f8", 4)])
_NO_MASK = -1
"""Length of the mask of a detection that has none."""


def create(folder: Path, store: AnnotationStore) -> None:
    """An empty folder for the shards of an evaluation on ``store``, in place of what was there.

    Raises:
        RunError: if the disk refuses.
    """
    shutil.rmtree(folder, ignore_errors=True)
    meta = {"format": _FORMAT, "ground_truth_hash": store.content_hash, "images": len(store.image_ids)}
    with _writing_to(folder):
        folder.mkdir(parents=True)
        (folder / META_FILE).write_text(json.dumps(meta))


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{folder}: detections cannot be written ({error.strerror})") from error


class ShardWriter:
    """Appends the detections of one process, with masks. Raises :class:`RunError` if the disk refuses."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder = folder
        with _writing_to(folder):
            self._images, self._records, self._masks = (
                (folder / f"{rank}.{kind}").open("wb") for kind in ("images", "records", "masks")
            )

    def append(
        self,
        image_index: int,
        labels: np.ndarray,
        scores: np.ndarray,
        boxes_xywh_orig: np.ndarray,
        masks: Sequence[bytes] | None,
    ) -> None:
        """Add one image's ``n`` detections.

        Args:
            image_index: row of the image in its store.
            labels: ``[n]`` integers in ``0..C-1``.
            scores: ``[n]``.
            boxes_xywh_orig: ``[n, 4]``.
            masks: ``n`` run length strings at the size of the image, or None from a model without masks.
        """
        records = np.empty(len(labels), dtype=_RECORD)
        records["label"], records["score"], records["box"] = labels, scores, boxes_xywh_orig
        records["mask_length"] = _NO_MASK if masks is None else [len(mask) for mask in masks]
        image = np.array([(image_index, len(labels))], dtype=_IMAGE)
        pieces = (
            (self._masks, b"".join(masks or ())),
            (self._records, records.tobytes()),
            (self._images, image.tobytes()),
        )
        with _writing_to(self._folder):
            for file, piece in pieces:
                file.write(piece)
                file.flush()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._images, self._records, self._masks):
            file.close()


def read(folder: Path, store: AnnotationStore) -> tuple[DetectionTable, int]:
    """All processes' detections by image, and of how many images they are; masks stay on disk until they are needed.

    Raises:
        DataError: if the folder holds no shards, or those of other ground truth.
    """
    try:
        meta = json.loads((folder / META_FILE).read_text())
        if meta["format"] != _FORMAT:
            raise DataError(f"{folder}: shards of format {meta['format']}, this version of aegl reads {_FORMAT}")
        if (meta["ground_truth_hash"], meta["images"]) != (store.content_hash, len(store.image_ids)):
            raise DataError(f"{folder}: detections on other data than is asked for; name that data and split")
        parts = [_read(path) for path in sorted(folder.glob("*.images"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: not a folder of detections written by aegl ({error})") from error
    table = DetectionTable.concatenate([table for table, _ in parts])
    # The order decides among equal scores; by image it does not depend on the number of processes.
    return table.take(np.argsort(table.image_index, kind="stable")), sum(images for _, images in parts)


def _read(path: Path) -> tuple[DetectionTable, int]:
    images = _whole(path, _IMAGE)
    records = _whole(path.with_suffix(".records"), _RECORD)
    masks = _whole(path.with_suffix(".masks"), np.dtype(np.uint8))
    count = np.cumsum(images["detections"], dtype=np.int64)
    length = np.maximum(records["mask_length"], 0)
    bytes_needed = np.cumsum(np.concatenate([[0], length]), dtype=np.int64)
    complete = (count <= len(records)) & (bytes_needed[np.minimum(count, len(records))] <= len(masks))
    images = images[: len(images) if complete.all() else int(np.argmin(complete))]
    records = records[: int(images["detections"].sum())]
    without_masks = bool((records["mask_length"] == _NO_MASK).any())
    table = DetectionTable(
        np.repeat(images["image"], images["detections"]),
        np.ascontiguousarray(records["label"]),
        np.ascontiguousarray(records["score"]),
        np.ascontiguousarray(records["box"]),
        None if without_masks else MaskColumn.packed(masks, length[: len(records)].astype(np.int32)),
    )
    return table, len(images)


def _whole(path: Path, dtype: np.dtype) -> np.ndarray:
    """A memory map of the complete entries of a file."""
    count = path.stat().st_size // dtype.itemsize
    return np.memmap(path, dtype, mode="r", shape=(count,)) if count else np.zeros(0, dtype)
