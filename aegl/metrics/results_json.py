"""The results format of COCO and LVIS: a JSON list of ``image_id category_id score bbox? segmentation?`` records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.errors import DataError
from aegl.metrics.rle import MaskColumn, boxes_of, encode, pixel_counts

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore


def read(path: Path, store: AnnotationStore) -> dict[str, Any]:
    """Columns of a :class:`aegl.metrics.detections.DetectionTable`; raises :class:`DataError` as documented there."""
    records = _load(path)
    image_index = _indices(path, records, "image_id", store.image_ids)
    label = _indices(path, records, "category_id", store.categories.ids)
    score = _numbers(path, records, "score", ())
    sizes = np.asarray(store.image_sizes)[image_index]
    # As the official packages do, the first record tells what all of them carry.
    has_boxes = bool(records) and bool(records[0].get("bbox"))
    has_masks = bool(records) and records[0].get("segmentation") is not None
    if records and not has_boxes and not has_masks:
        raise DataError(f"{path}: record 0 has neither bbox nor segmentation: is it a results file?")
    masks = _masks(path, records, sizes) if has_masks else None
    boxes = _numbers(path, records, "bbox", (4,)) if has_boxes or masks is None else boxes_of(masks, sizes)
    return {
        "image_index": image_index.astype(np.int32),
        "label": label.astype(np.int32),
        "score": score,
        "boxes_xywh_orig": boxes,
        "masks": masks,
        "boxes_given": has_boxes or not has_masks,
    }


def write(path: Path, store: AnnotationStore, columns: Mapping[str, Any]) -> None:
    """Write a table's columns, one record a line; boxes derived from masks are left out."""
    masks: MaskColumn | None = columns["masks"]
    image_ids = np.asarray(store.image_ids)
    category_ids = np.asarray(store.categories.ids)
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for row, (image, label) in enumerate(zip(columns["image_index"], columns["label"], strict=True)):
            record: dict[str, Any] = {"image_id": int(image_ids[image]), "category_id": int(category_ids[label])}
            if columns["boxes_given"]:
                record["bbox"] = columns["boxes_xywh_orig"][row].tolist()
            record["score"] = float(columns["score"][row])
            if masks is not None:
                size = [int(v) for v in store.image_sizes[image]]
                record["segmentation"] = {"size": size, "counts": masks[row].decode("ascii")}
            file.write((",\n" if row else "\n") + json.dumps(record, allow_nan=False))
        file.write("\n]\n")


def _load(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            records = json.load(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): give the path of a results file") from error
    except ValueError as error:
        raise DataError(f"{path}: corrupt JSON ({error})") from error
    if not isinstance(records, list):
        raise DataError(f"{path}: holds a {type(records).__name__}; a results file is a list of detections")
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise DataError(f"{path}: record {number} is no detection but {_short(record)}")
    return records


def _indices(path: Path, records: list[dict[str, Any]], key: str, ids: Any) -> np.ndarray:
    """Position of each record's id among ``ids``."""
    index: dict[float, int] = {int(known): row for row, known in enumerate(ids)}
    found = np.zeros(len(records), dtype=np.int64)
    for number, record in enumerate(records):
        value = record.get(key)
        row = index.get(value) if isinstance(value, int | float) else None
        if row is None:
            problem = f"has no {key}" if value is None else f"has {key} {_short(value)}, which the ground truth lacks"
            raise DataError(f"{path}: record {number} {problem}")
        found[number] = row
    return found


def _numbers(path: Path, records: list[dict[str, Any]], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """``[N, *shape]`` float64; every entry present and finite."""
    values = [record.get(key) for record in records]
    try:
        array = np.array(values, dtype=np.float64).reshape(len(records), *shape)
        if np.isfinite(array).all():
            return array
    except (TypeError, ValueError):
        pass  # the search below names the record
    number = next(n for n, value in enumerate(values) if not _is_finite(value, shape))
    wanted = "a finite number" if not shape else f"a list of {shape[0]} finite numbers"
    problem = f"has no {key}" if values[number] is None else f"has {key} {_short(values[number])}, not {wanted}"
    raise DataError(f"{path}: record {number} {problem}")


def _is_finite(value: Any, shape: tuple[int, ...]) -> bool:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return array.shape == shape and bool(np.isfinite(array).all())


def _masks(path: Path, records: list[dict[str, Any]], sizes: np.ndarray) -> MaskColumn:
    counts = []
    for number, record in enumerate(records):
        height, width = (int(v) for v in sizes[number])
        try:
            counts.append(encode(record.get("segmentation"), height, width))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: record {number}: {error}") from error
    masks = MaskColumn.from_counts(counts)
    pixels = pixel_counts(masks)[1]
    wrong = np.flatnonzero(pixels != sizes.prod(axis=1))
    if len(wrong):
        got = "are no valid RLE" if pixels[wrong[0]] < 0 else f"cover {pixels[wrong[0]]} pixels"
        size = " x ".join(str(v) for v in sizes[wrong[0]])
        raise DataError(f"{path}: record {wrong[0]}: the mask's counts {got}, the image has {size}")
    return masks


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
