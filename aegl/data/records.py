"""Reading annotation files and finding what is wrong with their records."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aegl.errors import DataError

SHOWN = 10
"""Problems named in one message; more are counted."""
REQUIRED = {
    "categories": ("id", "name"),
    "images": ("id", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
}

Problem = tuple[str, int | None, str]
"""Kind, annotation or image id, and message."""


def read_annotation_file(path: Path) -> dict[str, Any]:
    """The content of a COCO or LVIS annotation file.

    Raises:
        DataError: if it is missing, no JSON (with line and column), or lacks a table.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not valid JSON (line {error.lineno}, column {error.colno}: {error.msg}); is the file cut short?"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file, so no JSON (byte {error.start})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not the tables images, annotations, categories")
    for table in REQUIRED:
        if not isinstance(content.get(table), list):
            raise DataError(
                f"{path}: has no list `{table}`; COCO and LVIS files have images, annotations and categories"
            )
    return content


def id_problems(content: dict[str, Any]) -> Iterator[Problem]:
    """Records that cannot be used: missing keys, double ids, ids that do not exist, boxes that are not numbers."""
    for table, keys in REQUIRED.items():
        for position, record in enumerate(content[table]):
            missing = [key for key in _needed(table, keys) if not isinstance(record, dict) or key not in record]
            if missing:
                yield "missing key", None, f"record {position} of {table} lacks {', '.join(missing)}"
    for table, word in (("images", "image"), ("annotations", "annotation"), ("categories", "category")):
        counts = Counter(record.get("id") for record in content[table] if isinstance(record, dict))
        for key, times in counts.items():
            if times > 1:
                yield "double id", key, f"{word} id {key} occurs {times} times"
    images = {record.get("id") for record in content["images"] if isinstance(record, dict)}
    categories = {record.get("id") for record in content["categories"] if isinstance(record, dict)}
    for record in content["annotations"]:
        if isinstance(record, dict):
            yield from _annotation_problems(record, images, categories)


def refuse(path: Path, problems: Sequence[Problem]) -> None:
    """Raise one :class:`DataError` that lists what is wrong, if anything is."""
    if not problems:
        return
    lines = [f"  {message}" for _, _, message in problems[:SHOWN]]
    rest = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    raise DataError(f"{path}: {len(problems)} records cannot be used:\n" + "\n".join(lines) + rest)


def _needed(table: str, keys: tuple[str, ...]) -> tuple[str, ...]:
    return ("id",) if table == "categories" else keys


def _annotation_problems(record: dict[str, Any], images: set[Any], categories: set[Any]) -> Iterator[Problem]:
    key = record.get("id")
    if "image_id" in record and record["image_id"] not in images:
        yield "unknown image", key, f"annotation {key}: image_id {record['image_id']} is not among the images"
    if "category_id" in record and record["category_id"] not in categories:
        yield (
            "unknown category",
            key,
            f"annotation {key}: category_id {record['category_id']} is not among the categories",
        )
    box = record.get("bbox", [0, 0, 0, 0])
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        yield "bad box", key, f"annotation {key}: bbox {box} is not four finite numbers x, y, width, height"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
