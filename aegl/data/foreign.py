"""Folders in YOLO's and VOC's layout, used as they are: their annotations are rewritten as COCO's once, into the cache.

The images stay where they lie.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from aegl.data.build import cache_root, writing_cache
from aegl.data.convert import coco_lvis, voc, yolo
from aegl.progress import Progress

LOGGER = logging.getLogger("aegl")

Layout = Literal["yolo", "voc"]

_FORMAT = 1
"""Counts changes of what is written, so that older copies are not used."""


@dataclass(frozen=True)
class Rewritten:
    """The COCO copy of a foreign data set's annotations.

    Args:
        files: annotation file of each split.
        image_dirs: folders of the images.
    """

    files: dict[str, Path]
    image_dirs: tuple[Path, ...]


def layout_of(place: Path) -> Layout | None:
    """``yolo`` for a YAML of YOLO's or a folder with one, ``voc`` for a folder with VOC's XML files, else None."""
    if yolo.find_description(place) is not None:
        return "yolo"
    if place.is_dir() and voc.find_root(place) is not None:
        return "voc"
    return None


def rewrite(place: Path, layout: Layout, progress: Progress) -> Rewritten:
    """The annotations of ``place`` as COCO files; made anew when a file of theirs has changed.

    Raises:
        DataError: if something cannot be read, with file and line.
        RunError: if the cache cannot be written.
    """
    folder = cache_root() / "foreign" / f"{place.resolve().stem}-{_fingerprint(place, layout)}"
    if not folder.is_dir():
        LOGGER.info("data=%s: %s layout; its annotations are rewritten once as COCO files", place, layout.upper())
        _write(folder, place, layout, progress)
    described = yaml.safe_load((folder / coco_lvis.DESCRIPTION).read_text(encoding="utf-8"))
    files = {split: folder / described[split] for split in ("train", "val") if split in described}
    return Rewritten(files, tuple(Path(image_dir) for image_dir in described["images"]))


def _write(folder: Path, place: Path, layout: Layout, progress: Progress) -> None:
    """Write beside the final place and rename: a folder of that name is always complete."""
    splits = yolo.read(place) if layout == "yolo" else voc.read(place)
    with writing_cache(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            coco_lvis.write(splits, new, "coco", progress)
            new.replace(folder)


def _fingerprint(place: Path, layout: Layout) -> str:
    """Of the names, sizes and times of everything that the copy is made of."""
    digest = hashlib.sha256(f"{_FORMAT}|{place.resolve()}".encode())
    for file in yolo.files_of(place) if layout == "yolo" else voc.files_of(place):
        stat = file.stat() if file.is_file() else None
        digest.update(f"|{file}|{stat and (stat.st_size, stat.st_mtime_ns)}".encode())
    return digest.hexdigest()[:16]
