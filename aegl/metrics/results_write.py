"""Writing the results format of COCO and LVIS, one record a line, without holding more than a stretch of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.metrics.detections import DetectionTable

_ROWS = 1 << 14
_encode_lines = msgspec.json.Encoder().encode_lines


def write(path: Path, store: AnnotationStore, table: DetectionTable) -> None:
    """Write a table's records in their order; boxes derived from masks are left out.

    The file appears under its name when it is complete. Raises ``OSError`` if the disk refuses, ``ValueError`` for
    numbers that JSON has not.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(b"[")
        for start in range(0, len(table), _ROWS):
            records = _records(store, table, slice(start, start + _ROWS))
            file.write((b",\n" if start else b"\n") + _encode_lines(records)[:-1].replace(b"\n", b",\n"))
        file.write(b"\n]\n")
    temporary.replace(path)


def _records(store: AnnotationStore, table: DetectionTable, rows: slice) -> list[dict[str, Any]]:
    image = table.image_index[rows]
    columns: dict[str, list[Any]] = {
        "image_id": np.asarray(store.image_ids)[image].tolist(),
        "category_id": np.asarray(store.categories.ids)[table.label[rows]].tolist(),
    }
    boxes, scores = table.boxes_xywh_orig[rows], table.score[rows]
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("a detection has a score or a box that is not finite")
    if table.boxes_given:
        columns["bbox"] = boxes.tolist()
    columns["score"] = scores.tolist()
    if table.masks is not None:
        sizes = np.asarray(store.image_sizes)[image].tolist()
        texts = (counts.decode("ascii") for counts in table.masks.counts(rows))
        columns["segmentation"] = [{"size": size, "counts": text} for size, text in zip(sizes, texts, strict=True)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
