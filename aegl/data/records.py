"""Reading annotation files and finding what is wrong with their records."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from aegl.data.columns import FEDERATED
from aegl.data.json_tables import JsonTables
from aegl.data.json_values import are_numbers, is_number, is_text, is_whole, short
from aegl.data.segmentations import Size, find_broken
from aegl.errors import DataError
from aegl.progress import Progress

SHOWN = 10
"""Problems named in one message; more are counted."""
REQUIRED = {
    "images": ("id", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id",),
}
"""What every record of a table must have."""
_WORDS = {"images": "image", "annotations": "annotation", "categories": "category"}
_LARGEST_SIDE = 2**31 - 1

Record = dict[str, Any]


class Tables(Protocol):
    """What holds the three tables: a :class:`JsonTables`, or a dictionary of lists."""

    def __getitem__(self, name: str, /) -> Iterable[Any]:
        """The records of a table."""
        ...


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


class Checked(NamedTuple):
    """A record, and what keeps it from being used.

    Args:
        table: the table it stands in.
        record: None where it is no record, or where the problem is one of several records.
        problems: what is wrong; a record without problems can be relied on.
    """

    table: str
    record: Record | None
    problems: list[RecordProblem]


def read_annotation_file(path: Path, progress: Progress | None = None) -> JsonTables:
    """The tables of a COCO or LVIS annotation file, to be gone through record by record.

    Raises:
        DataError: if it is missing, no JSON (with line and column), or lacks a table.
    """
    return JsonTables(path, tuple(REQUIRED), progress)


def record_problems(tables: Tables) -> Iterator[RecordProblem]:
    """Everything that keeps records from being used.

    Missing keys, ids that are no whole numbers, occur twice or refer to nothing, sizes, boxes, areas, counts and flags
    that cannot be what they should, and segmentations that cannot be decoded.
    """
    for checked in checked_records(tables):
        yield from checked.problems


def checked_records(tables: Tables) -> Iterator[Checked]:
    """Categories, then images, then annotations, since each refers to the ones before; double ids after each table."""
    categories = set[int]()
    for record, problems in _of_good_form("categories", tables["categories"]):
        if record is not None:
            categories.add(record["id"])
            problems.extend(_category_problems(record))
        yield Checked("categories", record, problems)
    sizes = dict[int, Size | None]()
    for record, problems in _of_good_form("images", tables["images"]):
        if record is not None:
            sizes[record["id"]] = _size(record)
            problems.extend(_image_problems(record, categories))
        yield Checked("images", record, problems)
    for record, problems in _of_good_form("annotations", tables["annotations"]):
        if record is not None:
            problems.extend(_annotation_problems(record, sizes, categories))
        yield Checked("annotations", record, problems)


def refuse(path: Path, problems: Iterable[RecordProblem]) -> None:
    """Raise one :class:`DataError` that lists what is wrong, if anything is; however much it is, few are held."""
    problems = iter(problems)
    shown = list(islice(problems, SHOWN))
    if not shown:
        return
    number = len(shown) + sum(1 for _ in problems)
    lines = [f"  {problem.message}" for problem in shown]
    if number > SHOWN:
        lines.append(f"  and {number - SHOWN} more; `aegl data check data={path}` shows more")
    found = "a record that cannot be used" if number == 1 else f"{number} problems with its records"
    raise DataError(f"{path}: {found}:\n" + "\n".join(lines))


def _of_good_form(table: str, records: Iterable[Any]) -> Iterator[tuple[Record | None, list[RecordProblem]]]:
    """Records that can be looked at more closely, each with an empty list; problems without record for the others."""
    ids = array("q")
    for position, record in enumerate(records):
        problem = _form_problem(table, position, record)
        if problem is None:
            ids.append(int(record["id"]))
            yield record, []
        else:
            yield None, [problem]
    keys, times = np.unique(np.asarray(ids), return_counts=True)
    for key, number in zip(keys[times > 1].tolist(), times[times > 1].tolist(), strict=True):
        yield None, [RecordProblem("double id", key, f"{_WORDS[table]} id {key} occurs {number} times")]


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


def _image_problems(record: Record, categories: Collection[int]) -> Iterator[RecordProblem]:
    key = int(record["id"])
    for name in ("height", "width"):
        if not _is_side(record[name]):
            message = f"image {key}: {name} {short(record[name])} is not a whole number of pixels above 0"
            yield RecordProblem("bad image size", key, message)
    for name in ("file_name", "coco_url"):
        if record.get(name) is not None and not is_text(record[name]):
            yield RecordProblem("bad file name", key, f"image {key}: {name} {short(record[name])} is no text")
    for name in FEDERATED.values():
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
    record: Record, sizes: Mapping[int, Size | None], categories: Collection[int]
) -> Iterator[RecordProblem]:
    key = int(record["id"])
    image_id, category_id = record["image_id"], record["category_id"]
    known = is_whole(image_id) and image_id in sizes
    if not known:
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
    if known and (size := sizes[image_id]) is not None:
        broken = find_broken(record.get("segmentation"), size)
        if broken is not None:
            yield RecordProblem(broken.kind, key, f"annotation {key}: {broken.message}")


def _size(image: Record) -> Size | None:
    """Height and width of an image, None where they are no sizes."""
    sides = image["height"], image["width"]
    return (int(sides[0]), int(sides[1])) if all(map(_is_side, sides)) else None


def _is_side(value: Any) -> bool:
    return is_whole(value) and 1 <= value <= _LARGEST_SIDE


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and are_numbers(value) and min(value[2:]) >= 0


def _is_flag(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and value in (0, 1))
