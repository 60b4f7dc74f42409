"""YOLO's text files: a line for each object, class and box or polygon, in shares of the image's sides.

A folder holds a YAML with ``names``, ``path``, ``train`` and ``val`` (folders or lists of images), the images below a
folder ``images`` and, at the same place below ``labels``, a text file for each image that has objects.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from aegl.config.values import read_mapping
from aegl.data.categories import CategoryTable
from aegl.data.convert.files import IMAGE_SUFFIXES, flat_names, link_image
from aegl.data.convert.model import Annotated, Picture, Polygons, Thing
from aegl.data.preprocess import UNREADABLE
from aegl.errors import DataError
from aegl.progress import Progress

DESCRIPTION = "data.yaml"
_BOX = 4


def find_description(place: Path) -> Path | None:
    """The YAML of a YOLO data set: ``place`` itself or in that folder; None if there is none."""
    files = [place] if place.is_file() else sorted([*place.glob("*.yaml"), *place.glob("*.yml")])
    for file in files:
        content = read_mapping(file, f"data={file}") if file.suffix in (".yaml", ".yml") else {}
        splits = [content[split] for split in ("train", "val") if content.get(split)]
        if "names" in content and splits and all(map(_names_images, splits)):
            return file
    return None


def _names_images(given: Any) -> bool:
    """Whether the value of `train` or `val` may be folders or lists of images, and no annotation file."""
    entries = given if isinstance(given, list) else [given]
    return all(isinstance(entry, str) and not entry.endswith(".json") for entry in entries)


def read(place: Path) -> dict[str, Annotated]:
    """The splits of a YOLO data set.

    Raises:
        DataError: if its files do not fit together; in the pictures, naming the file and line that cannot be used.
    """
    file, content, root = _described(place)
    names = _names(content["names"], file)
    table = CategoryTable(np.arange(1, len(names) + 1), names)
    images = _images_of_splits(file, content, root)
    return {split: _annotated(paths, table, root) for split, paths in images.items()}


def files_of(place: Path) -> list[Path]:
    """Every file that :func:`read` goes by: the YAML, the images, and the labels whether they are there or not."""
    file, content, root = _described(place)
    images = [path for paths in _images_of_splits(file, content, root).values() for path in paths]
    return [file, *images, *map(_label_file, images)]


def write(splits: Mapping[str, Annotated], folder: Path, progress: Progress) -> dict[str, Counter[str]]:
    """Write labels, links to the images and ``data.yaml``; returns what was left out of each split.

    Several polygons of an object are joined by seams without width, as a line holds one. Masks that are run lengths
    are written as their boxes.
    """
    left_out = {}
    for split, annotated in splits.items():
        progress.start(f"write {split}", annotated.count, "image")
        counter = left_out[split] = Counter[str]()
        labels, images = folder / "labels" / split, folder / "images" / split
        labels.mkdir(parents=True)
        images.mkdir(parents=True)
        name_of = flat_names()
        for picture in annotated.pictures():
            name = Path(name_of(picture.name))
            lines = _lines(picture, counter)
            (labels / name.with_suffix(".txt")).write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
            link_image(picture, images / name, counter)
            progress.update(1)
        progress.finish()
    names = next(iter(splits.values())).categories.names
    content: dict[str, Any] = {split: f"images/{split}" for split in splits}
    content["names"] = dict(enumerate(names))
    (folder / DESCRIPTION).write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return left_out


def _described(place: Path) -> tuple[Path, dict[str, Any], Path]:
    """The YAML, its content, and the folder that its paths start from."""
    file = find_description(place)
    if file is None:
        raise DataError(f"data={place}: no YAML with `names` and `train` or `val`, as YOLO has it")
    content = read_mapping(file, f"data={file}")
    root = file.parent / str(content.get("path") or ".")
    return file, content, root if root.is_dir() else file.parent


def _images_of_splits(file: Path, content: Mapping[str, Any], root: Path) -> dict[str, list[Path]]:
    splits = [split for split in ("train", "val") if content.get(split)]
    return {split: _images(content[split], root, f"data={file}: {split}") for split in splits}


def _names(given: Any, file: Path) -> tuple[str, ...]:
    if isinstance(given, dict) and sorted(given) == list(range(len(given))):
        given = [given[label] for label in range(len(given))]
    if not isinstance(given, list) or not given:
        raise DataError(f"data={file}: names: must be a list of class names, or names by number from 0")
    return tuple(map(str, given))


def _images(given: Any, root: Path, label: str) -> list[Path]:
    """Image files of folders, and of lists of files."""
    found: list[Path] = []
    for entry in given if isinstance(given, list) else [given]:
        place = root / str(entry)
        if not place.exists() and str(entry).startswith("../"):  # some tools write paths as if from a folder below
            place = root / str(entry).removeprefix("../")
        if place.is_dir():
            found += sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        elif place.is_file() and place.suffix == ".txt":
            lines = place.read_text(encoding="utf-8").splitlines()
            found += [place.parent / line.strip() for line in lines if line.strip()]
        else:
            raise DataError(f"{label}: {place}: neither a folder of images nor a text file that lists them")
    return found


def _annotated(images: list[Path], table: CategoryTable, root: Path) -> Annotated:
    def pictures() -> Iterator[Picture]:
        for number, path in enumerate(images, start=1):
            yield _picture(number, path, root, len(table))

    return Annotated(table, pictures, len(images), (root.resolve(),))


def _picture(number: int, path: Path, root: Path, num_classes: int) -> Picture:
    try:
        with Image.open(path) as image:
            width, height = image.size
    except UNREADABLE as error:
        raise DataError(f"{path}: the image cannot be read ({error})") from error
    labels = _label_file(path)
    things = list(_things(labels, num_classes, height, width)) if labels.is_file() else []
    name = os.path.relpath(path.resolve(), root.resolve())
    return Picture(number, Path(name).as_posix(), height, width, things, find=lambda: path)


def _label_file(image: Path) -> Path:
    """Where the labels of an image lie: the last folder ``images`` of its path exchanged for ``labels``."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _things(file: Path, num_classes: int, height: int, width: int) -> Iterator[Thing]:
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if words:
            try:
                yield _thing(words, num_classes, height, width)
            except ValueError as error:
                raise DataError(f"{file}: line {number}: {error}") from None


def _thing(words: list[str], num_classes: int, height: int, width: int) -> Thing:
    """An object from the words of a line. Raises ``ValueError`` with what is wrong."""
    if not words[0].isdecimal() or int(words[0]) >= num_classes:
        raise ValueError(f"class {words[0]} is not a number from 0 to {num_classes - 1}")
    values = np.array([float(word) for word in words[1:]])
    if not np.isfinite(values).all():
        raise ValueError("has a number that is not finite")
    if len(values) == _BOX:
        x, y, w, h = (values * [width, height, width, height]).tolist()
        if min(w, h) < 0:
            raise ValueError("its box has a negative side")
        return Thing(int(words[0]), (x - w / 2, y - h / 2, w, h), w * h)
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"has {len(values)} numbers after the class: neither a box (4) nor a polygon (6, 8, ...)")
    corners = values.reshape(-1, 2) * [width, height]
    low, high = corners.min(0), corners.max(0)
    box = (*low.tolist(), *(high - low).tolist())
    return Thing(int(words[0]), box, abs(_signed_area(corners)), [corners])


def _signed_area(corners: np.ndarray) -> float:
    """Area of a polygon, negative where it runs the other way round."""
    x, y = corners.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _lines(picture: Picture, left_out: Counter[str]) -> list[str]:
    with_outline = any(thing.polygons and not thing.crowd for thing in picture.things)
    size = np.array([picture.width, picture.height], dtype=np.float64)
    lines = []
    for thing in picture.things:
        low = np.clip(thing.box[:2] / size, 0, 1)
        high = np.clip((np.array(thing.box[:2]) + thing.box[2:]) / size, 0, 1)
        if thing.crowd or (high <= low).any():
            left_out["crowds" if thing.crowd else "boxes without area in the image"] += 1
            continue
        if thing.rle is not None:
            left_out["masks that are run lengths"] += 1
        if thing.polygons:
            values = np.clip(_joined(thing.polygons) / size, 0, 1).reshape(-1)
        elif with_outline:  # a file of polygons holds nothing else
            values = np.array([*low, high[0], low[1], *high, low[0], high[1]])
        else:
            values = np.concatenate([(low + high) / 2, high - low])
        lines.append(" ".join([str(thing.label), *(f"{value:.10g}" for value in values)]))
    return lines


def _joined(polygons: Polygons) -> np.ndarray:
    """One polygon from several: each is entered and left where it comes nearest to those before, all one way round."""
    forward = [polygon if _signed_area(polygon) >= 0 else polygon[::-1] for polygon in polygons]
    whole = forward[0]
    for polygon in forward[1:]:
        distance = ((whole[:, None] - polygon[None]) ** 2).sum(-1)
        here, there = np.unravel_index(distance.argmin(), distance.shape)
        around = np.concatenate([polygon[there:], polygon[: there + 1]])
        whole = np.concatenate([whole[: here + 1], around, whole[here:]])
    return whole
