"""Reading annotation files and finding what is wrong with their records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aegl.data.json_values import are_numbers, is_number, is_text, is_whole, short
from aegl.data.segmentations import find_broken
from aegl.errors import DataError

SHOWN = 10
"""Problems named in one message; more are counted."""
REQUIRED = {
    "images": ("id", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id",),
}
"""What every record of a table must have."""
FEDERATED_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")
_WORDS = {"images": "image", "annotations": "annotation", "categories": "category"}
_LARGEST_SIDE = 2**31 - 1

Record = dict[str, Any]


class RecordProblem(NamedTuple):
    """One thing that keeps a record from being used.

    Args:
        kind: what kind of problem.
        id: of the annotation, image or category, or None where the record has none.
        message: the problem in words.
    """

    kind: str
    id: int | None
    message: str


def read_annotation_file(path: Path) -> dict[str, Any]:
    """The content of a COCO or LVIS annotation file.

    Raises:
        DataError: if it is missing, no JSON (with line and column), or lacks a table.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not valid JSON (line {error.lineno}, column {error.colno}: {error.msg}); is the file cut short?"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file, so no JSON (byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON of annotations ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not the tables images, annotations, categories")
    for table in REQUIRED:
        if not isinstance(content.get(table), list):
            raise DataError(
                f"{path}: has no list `{table}`; COCO and LVIS files have images, annotations and categories"
            )
    return content


def record_problems(content: Mapping[str, Any]) -> Iterator[RecordProblem]:
    """Everything that keeps records from being used.

    Missing keys, ids that are no whole numbers, occur twice or refer to nothing, sizes, boxes, areas, counts and flags
    that cannot be what they should, and segmentations that cannot be decoded.
    """
    found = list[RecordProblem]()
    tables = {table: _usable(table, content[table], found) for table in REQUIRED}
    yield from found
    images = {record["id"]: record for record in tables["images"]}
    categories = {record["id"]: record for record in tables["categories"]}
    for record in tables["images"]:
        yield from _image_problems(record, categories)
    for record in tables["categories"]:
        yield from _category_problems(record)
    for record in tables["annotations"]:
        yield from _annotation_problems(record, images, categories)


def refuse(path: Path, problems: Sequence[RecordProblem]) -> None:
    """Raise one :class:`DataError` that lists what is wrong, if anything is."""
    if not problems:
        return
    lines = [f"  {problem.message}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN} more; `aegl data check data={path}` shows more")
    found = "a record that cannot be used" if len(problems) == 1 else f"{len(problems)} problems with its records"
    raise DataError(f"{path}: {found}:\n" + "\n".join(lines))


def _usable(table: str, records: Sequence[Any], found: list[RecordProblem]) -> list[Record]:
    """The records that can be looked at more closely; the others, and double ids, are put into ``found``."""
    usable = list[Record]()
    for position, record in enumerate(records):
        problem = _form_problem(table, position, record)
        if problem is None:
            usable.append(record)
        else:
            found.append(problem)
    for key, times in Counter(record["id"] for record in usable).items():
        if times > 1:
            found.append(RecordProblem("double id", int(key), f"{_WORDS[table]} id {key} occurs {times} times"))
    return usable


def _form_problem(table: str, position: int, record: Any) -> RecordProblem | None:
    """What keeps a record from being looked at any further."""
    if not isinstance(record, dict):
        return RecordProblem("no record", None, f"record {position} of {table} is {short(record)}, not an object")
    missing = [key for key in REQUIRED[table] if key not in record]
    if missing:
        message = f"record {position} of {table} lacks {', '.join(missing)}"
        return RecordProblem("missing key", None, message)
    if not is_whole(record["id"]):
        message = f"record {position} of {table}: id {short(record['id'])} is not a whole number"
        return RecordProblem("bad id", None, message)
    return None


def _image_problems(record: Record, categories: Mapping[int, Record]) -> Iterator[RecordProblem]:
    key = int(record["id"])
    for name in ("height", "width"):
        if not _is_side(record[name]):
            message = f"image {key}: {name} {short(record[name])} is not a whole number of pixels above 0"
            yield RecordProblem("bad image size", key, message)
    for name in ("file_name", "coco_url"):
        if record.get(name) is not None and not is_text(record[name]):
            yield RecordProblem("bad file name", key, f"image {key}: {name} {short(record[name])} is no text")
    for name in FEDERATED_KEYS:
        ids = record.get(name)
        if ids is not None and not isinstance(ids, list):
            message = f"image {key}: {name} {short(ids)} is not a list of category ids"
            yield RecordProblem("bad category list", key, message)
        elif unknown := [value for value in ids or () if not is_whole(value) or value not in categories]:
            message = f"image {key}: {name} has {short(unknown)}, not among the categories"
            yield RecordProblem("unknown category", key, message)


def _category_problems(record: Record) -> Iterator[RecordProblem]:
    key = int(record["id"])
    name = record.get("name")
    if isinstance(name, str) and not is_text(name):
        yield RecordProblem("bad name", key, f"category {key}: name {short(name)} is no text")
    for count in ("image_count", "instance_count"):
        value = record.get(count)
        if value is not None and not (is_whole(value) and value >= 0):
            message = f"category {key}: {count} {short(value)} is not a whole number from 0"
            yield RecordProblem("bad count", key, message)


def _annotation_problems(
    record: Record, images: Mapping[int, Record], categories: Mapping[int, Record]
) -> Iterator[RecordProblem]:
    key = int(record["id"])
    image_id, category_id = record["image_id"], record["category_id"]
    image = images.get(image_id) if is_whole(image_id) else None
    if image is None:
        message = f"annotation {key}: image_id {short(image_id)} is not among the images"
        yield RecordProblem("unknown image", key, message)
    if not is_whole(category_id) or category_id not in categories:
        message = f"annotation {key}: category_id {short(category_id)} is not among the categories"
        yield RecordProblem("unknown category", key, message)
    box = record["bbox"]
    if not _is_box(box):
        message = f"annotation {key}: bbox {short(box)} is not x, y, width, height in finite numbers, the sides from 0"
        yield RecordProblem("bad box", key, message)
    area = record.get("area")
    if area is not None and not (is_number(area) and area >= 0):
        yield RecordProblem("bad area", key, f"annotation {key}: area {short(area)} is not a finite number from 0")
    for flag in ("iscrowd", "ignore"):
        if not _is_flag(record.get(flag)):
            yield RecordProblem("bad flag", key, f"annotation {key}: {flag} {short(record[flag])} is neither 0 nor 1")
    if image is not None and _is_side(image["height"]) and _is_side(image["width"]):
        size = (int(image["height"]), int(image["width"]))
        broken = find_broken(record.get("segmentation"), size)
        if broken is not None:
            yield RecordProblem(broken.kind, key, f"annotation {key}: {broken.message}")


def _is_side(value: Any) -> bool:
    return is_whole(value) and 1 <= value <= _LARGEST_SIDE


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and are_numbers(value) and min(value[2:]) >= 0


def _is_flag(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and value in (0, 1))
