"""The columns of an annotation store, gathered record by record; what would fill the memory goes to disk at once."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aegl.data.categories import CategoryTable
from aegl.data.segmentations import compressed_counts
from aegl.data.store import NO_MASK, POLYGONS, RLE, without_lvis_prefix

FEDERATED = {"neg": "neg_category_ids", "not_exhaustive": "not_exhaustive_category_ids"}
"""Column and key of what an image says of classes that it does or does not hold."""
_BLOCK = 8_000
"""Annotations that are put into order at a time."""

Record = dict[str, Any]


class ColumnWriter:
    """Takes records that nothing is wrong with, in any order of the tables' own, and writes the columns of a store.

    Args:
        scratch: folder for what is too large to be held; must be empty.
    """

    def __init__(self, scratch: Path) -> None:
        self._categories: list[Record] = []
        self._sizes: dict[int, tuple[int, int]] = {}
        self._names: list[bytes] = []
        self._federated = {name: _Ragged("q") for name in FEDERATED}
        self._any_federated = False
        self._ids, self._image_ids, self._category_ids = array("q"), array("q"), array("q")
        self._boxes, self._areas = array("d"), array("d")
        self._crowd, self._ignore, self._mask_kind = bytearray(), bytearray(), bytearray()
        self._rings = _Ragged("q")
        self._points = _Spool(scratch / "points", np.dtype(np.float64))
        self._rles = _Spool(scratch / "rles", np.dtype(np.uint8))

    def add(self, table: str, record: Record) -> None:
        """Take a record of ``categories``, ``images`` or ``annotations``; an image before its annotations."""
        if table == "annotations":
            self._add_annotation(record)
        elif table == "images":
            self._add_image(record)
        else:
            self._categories.append(record)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the columns, annotations by image; returns ``categories`` and ``federated`` for the store."""
        categories = CategoryTable.from_records(self._categories)
        image_ids = np.fromiter(self._sizes, np.int64, len(self._sizes))
        sizes = np.asarray(list(self._sizes.values()), dtype=np.int32).reshape(-1, 2)
        by_id = np.argsort(image_ids)
        ann_image = by_id[np.searchsorted(image_ids[by_id], np.asarray(self._image_ids))]
        order = np.argsort(ann_image, kind="stable")
        columns: dict[str, np.ndarray] = {
            "image_ids": image_ids,
            "image_sizes": sizes,
            "image_name_offsets": _offsets(list(map(len, self._names))),
            "image_name_bytes": np.frombuffer(b"".join(self._names), dtype=np.uint8),
            "ann_offsets": _offsets(np.bincount(ann_image, minlength=len(image_ids))),
            "ann_ids": np.asarray(self._ids)[order],
            "ann_labels": categories.labels_of(np.asarray(self._category_ids)).astype(np.int32)[order],
            "ann_boxes_xywh": np.asarray(self._boxes).reshape(-1, 4)[order],
            "ann_areas": np.asarray(self._areas)[order],
            "ann_crowd": np.frombuffer(self._crowd, dtype=bool)[order],
            "ann_ignore": np.frombuffer(self._ignore, dtype=bool)[order],
            **self._mask_columns(sizes[ann_image], order),
        }
        for name, lists in self._federated.items():
            columns[f"{name}_offsets"] = _offsets(lists.counts)
            columns[f"{name}_values"] = categories.labels_of(np.asarray(lists.values)).astype(np.int32)
        for name, column in columns.items():
            np.save(folder / f"{name}.npy", column)
        self._points.write(folder / "points.npy", order, width=2)
        self._rles.write(folder / "rle_bytes.npy", order)
        return {"federated": self._any_federated, "categories": categories.to_dict()}

    def _add_image(self, record: Record) -> None:
        self._sizes[int(record["id"])] = int(record["height"]), int(record["width"])
        self._names.append(_image_name(record).encode())
        self._any_federated |= "neg_category_ids" in record
        for name, key in FEDERATED.items():
            self._federated[name].append(map(int, record.get(key) or ()))

    def _add_annotation(self, record: Record) -> None:
        image_id, box, area = int(record["image_id"]), record["bbox"], record.get("area")
        self._ids.append(int(record["id"]))
        self._image_ids.append(image_id)
        self._category_ids.append(int(record["category_id"]))
        self._boxes.fromlist(box)
        self._areas.append(box[2] * box[3] if area is None else area)
        self._crowd.append(bool(record.get("iscrowd")))
        self._ignore.append(bool(record.get("ignore")))
        self._add_mask(record.get("segmentation") or [], self._sizes[image_id])

    def _add_mask(self, segmentation: Any, size: tuple[int, int]) -> None:
        polygons = segmentation if isinstance(segmentation, list) else []
        counts = compressed_counts(segmentation, size) if isinstance(segmentation, dict) else b""
        self._mask_kind.append(RLE if counts else POLYGONS if polygons else NO_MASK)
        self._rings.append(len(polygon) // 2 for polygon in polygons)
        points = array("d")
        for polygon in polygons:
            points.fromlist(polygon)
        self._points.append(points)
        self._rles.append(counts)

    def _mask_columns(self, sizes: np.ndarray, order: np.ndarray) -> dict[str, np.ndarray]:
        kind = np.frombuffer(self._mask_kind, dtype=np.uint8)
        rings, ring_counts = np.asarray(self._rings.values), np.asarray(self._rings.counts)
        ordered = _gathered_rows(_offsets(ring_counts), order)
        return {
            "mask_kind": kind[order],
            "ring_offsets": _offsets(ring_counts[order]),
            "point_offsets": _offsets(rings[ordered]),
            "rle_offsets": _offsets(np.asarray(self._rles.counts)[order]),
            "rle_sizes": np.where((kind == RLE)[:, None], sizes, 0).astype(np.int32).reshape(-1, 2)[order],
        }


class _Ragged:
    """Lists of numbers of different lengths, one after the other."""

    def __init__(self, typecode: str) -> None:
        self.values, self.counts = array(typecode), array("q")

    def append(self, values: Iterator[int]) -> None:
        before = len(self.values)
        self.values.extend(values)
        self.counts.append(len(self.values) - before)


class _Spool:
    """Long lists of numbers, one per annotation, on disk in the order they come."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._path, self._dtype = path, dtype
        self._stream = path.open("wb", buffering=2**20)
        self.counts = array("q")

    def append(self, values: array[float] | bytes) -> None:
        self._stream.write(values)
        self.counts.append(len(values))

    def write(self, target: Path, order: np.ndarray, width: int = 0) -> None:
        """Write a ``.npy`` with the lists in another order; ``width`` is that of its rows, 0 for no rows."""
        self._stream.close()
        counts = np.asarray(self.counts)
        total = int(counts.sum())
        values = np.memmap(self._path, self._dtype, mode="r") if total else np.zeros(0, self._dtype)
        offsets = _offsets(counts)
        shape = (total // width, width) if width else (total,)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        with target.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, len(order), _BLOCK):
                rows = _gathered_rows(offsets, order[start : start + _BLOCK])
                stream.write(values[rows].tobytes())
        self._path.unlink()


def _offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def _gathered_rows(offsets: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows of the values of lists ``order``, one list after the other; list ``k`` is ``offsets[k]:offsets[k + 1]``."""
    counts = offsets[order + 1] - offsets[order]
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(offsets[order] - (ends - counts), counts)


def _image_name(image: Record) -> str:
    """Path below the images' folder: LVIS names files by ``coco_url``, whose folder tells train2017 from val2017."""
    url = image.get("coco_url") or ""
    name = image.get("file_name") or ""
    if name and not url.endswith((f"/{name}", f"/{without_lvis_prefix(name)}")):
        return str(name)
    return "/".join(url.split("/")[-2:]) if url else f"{int(image['id']):012d}.jpg"
