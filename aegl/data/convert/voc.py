"""Pascal VOC: an XML for each image with the boxes of its objects, in whole pixels from 1, both ends included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from aegl.data.categories import CategoryTable
from aegl.data.convert.files import flat_names, link_image
from aegl.data.convert.model import Annotated, Picture, Thing
from aegl.errors import DataError
from aegl.progress import Progress

ANNOTATIONS, IMAGES, LISTS = "Annotations", "JPEGImages", "ImageSets/Main"
_SPLITS = ({"train": "train", "val": "val"}, {"train": "trainval", "val": "test"})
"""Which list of images is which split, as far as there are lists."""


def find_root(place: Path) -> Path | None:
    """The folder that holds ``Annotations``: ``place``, or the only one of its kind in it; None if there is none."""
    for pattern in (ANNOTATIONS, f"*/{ANNOTATIONS}", f"VOCdevkit/*/{ANNOTATIONS}"):
        found = [path.parent for path in place.glob(pattern) if next(path.glob("*.xml"), None)]
        if len(found) > 1:
            listed = ", ".join(sorted(path.name for path in found))
            raise DataError(f"data={place}: holds several data sets in the form of VOC: {listed}; name one of them")
        if found:
            return found[0]
    return None


def read(place: Path) -> dict[str, Annotated]:
    """The splits of a data set in the form of VOC; without lists of images all are the training split.

    Raises:
        DataError: if there is none; in the pictures, naming the file that cannot be used.
    """
    root = find_root(place)
    if root is None:
        raise DataError(f"data={place}: no folder {ANNOTATIONS} with XML files, as VOC has it")
    stems = _stems(root)
    names = sorted({_text(thing, "name", file) for _, file, thing in _objects(root, stems)})
    table = CategoryTable(np.arange(1, len(names) + 1), tuple(names))
    return {split: _annotated(root, found, table) for split, found in stems.items()}


def files_of(place: Path) -> list[Path]:
    """Every file that :func:`read` goes by: annotations and lists."""
    root = find_root(place)
    return [] if root is None else sorted([*(root / ANNOTATIONS).glob("*.xml"), *(root / LISTS).glob("*.txt")])


def write(splits: Mapping[str, Annotated], folder: Path, progress: Progress) -> dict[str, Counter[str]]:
    """Write annotations, lists and links to the images; returns what was left out of each split.

    VOC has boxes only. An object that is not to be counted is ``difficult`` there.
    """
    for name in (ANNOTATIONS, IMAGES, LISTS):
        (folder / name).mkdir(parents=True)
    left_out = {}
    name_of = flat_names()
    for split, annotated in splits.items():
        progress.start(f"write {split}", annotated.count, "image")
        counter = left_out[split] = Counter[str]()
        stems = []
        for picture in annotated.pictures():
            file = Path(name_of(picture.name))
            tree = ElementTree.ElementTree(_xml(picture, file.name, annotated.categories, counter))
            ElementTree.indent(tree)
            tree.write(folder / ANNOTATIONS / f"{file.stem}.xml", encoding="utf-8")
            link_image(picture, folder / IMAGES / file, counter)
            stems.append(file.stem)
            progress.update(1)
        (folder / LISTS / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
        progress.finish()
    return left_out


def _stems(root: Path) -> dict[str, list[str]]:
    """Names of the annotation files of each split."""
    for lists in _SPLITS:
        found = {split: root / LISTS / f"{name}.txt" for split, name in lists.items()}
        if found["train"].is_file():
            files = {split: file for split, file in found.items() if file.is_file()}
            return {split: file.read_text(encoding="utf-8").split() for split, file in files.items()}
    return {"train": sorted(file.stem for file in (root / ANNOTATIONS).glob("*.xml"))}


def _parsed(root: Path, stem: str) -> tuple[Path, ElementTree.Element]:
    file = root / ANNOTATIONS / f"{stem}.xml"
    try:
        return file, ElementTree.parse(file).getroot()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    except ElementTree.ParseError as error:
        raise DataError(f"{file}: not valid XML ({error})") from error


def _objects(root: Path, stems: Mapping[str, list[str]]) -> Iterator[tuple[str, Path, ElementTree.Element]]:
    for split, names in stems.items():
        for stem in names:
            file, tree = _parsed(root, stem)
            for thing in tree.iter("object"):
                yield split, file, thing


def _annotated(root: Path, stems: list[str], table: CategoryTable) -> Annotated:
    label_of = {name: label for label, name in enumerate(table.names)}

    def pictures() -> Iterator[Picture]:
        for number, stem in enumerate(stems, start=1):
            yield _picture(number, root, stem, label_of)

    return Annotated(table, pictures, len(stems), ((root / IMAGES).resolve(),))


def _picture(number: int, root: Path, stem: str, label_of: Mapping[str, int]) -> Picture:
    file, tree = _parsed(root, stem)
    name = tree.findtext("filename") or f"{stem}.jpg"
    height, width = (int(_number(tree, f"size/{side}", file)) for side in ("height", "width"))
    if min(height, width) < 1:
        raise DataError(f"{file}: size: {width} x {height} is no size of an image")
    things = [_thing(thing, file, label_of) for thing in tree.iter("object")]
    path = root / IMAGES / name
    return Picture(number, name, height, width, things, find=lambda: path if path.is_file() else None)


def _thing(thing: ElementTree.Element, file: Path, label_of: Mapping[str, int]) -> Thing:
    left, top, right, bottom = (_number(thing, f"bndbox/{end}", file) for end in ("xmin", "ymin", "xmax", "ymax"))
    width, height = right - left + 1, bottom - top + 1
    if min(width, height) < 0:
        raise DataError(f"{file}: bndbox: ends before it begins ({left:g} {top:g} {right:g} {bottom:g})")
    difficult = thing.findtext("difficult", "0").strip() == "1"
    return Thing(
        label_of[_text(thing, "name", file)], (left - 1, top - 1, width, height), width * height, ignore=difficult
    )


def _text(element: ElementTree.Element, path: str, file: Path) -> str:
    text = (element.findtext(path) or "").strip()
    if not text:
        raise DataError(f"{file}: <{element.tag}> has no <{path.rpartition('/')[2]}>")
    return text


def _number(element: ElementTree.Element, path: str, file: Path) -> float:
    text = _text(element, path, file)
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise DataError(f"{file}: <{path.rpartition('/')[2]}>: {text} is not a number")
    return value


def _ends(thing: Thing, picture: Picture) -> tuple[int, ...]:
    """The pixels that a box begins and ends at, inside the image and at least one."""
    x, y, width, height = thing.box
    left, top = min(max(round(x), 0), picture.width - 1), min(max(round(y), 0), picture.height - 1)
    right, bottom = min(round(x + width), picture.width), min(round(y + height), picture.height)
    return left + 1, top + 1, max(right, left + 1), max(bottom, top + 1)


def _xml(picture: Picture, name: str, table: CategoryTable, left_out: Counter[str]) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = name
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", picture.width), ("height", picture.height), ("depth", 3)):
        ElementTree.SubElement(size, key).text = str(value)
    for thing in picture.things:
        if thing.crowd:
            left_out["crowds"] += 1
            continue
        left_out["masks"] += bool(thing.polygons or thing.rle)
        entry = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(entry, "name").text = table.names[thing.label]
        ElementTree.SubElement(entry, "difficult").text = str(int(thing.ignore))
        box = ElementTree.SubElement(entry, "bndbox")
        ends = _ends(thing, picture)
        for key, end in zip(("xmin", "ymin", "xmax", "ymax"), ends, strict=True):
            ElementTree.SubElement(box, key).text = str(end)
    return root
