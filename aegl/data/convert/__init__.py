"""From one annotation format to another, one file for each format.

Reading gives :class:`aegl.data.convert.model.Annotated` splits, writing takes them; pictures pass one by one, so that
memory does not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegl.data.convert import coco_lvis, voc, yolo
from aegl.data.convert.files import new_folder
from aegl.data.convert.model import Annotated, of_store
from aegl.progress import Progress

if TYPE_CHECKING:
    from aegl.data.source import DataSource

__all__ = ["convert", "read_splits"]


def convert(
    data: str,
    to: str,
    output: Path,
    *,
    read_as: str,
    source: Callable[[], DataSource],
    progress: Progress,
) -> dict[str, Any]:
    """Write a data set in another format into a new folder.

    Args:
        data: what the user named.
        to: ``coco``, ``lvis``, ``yolo`` or ``voc``.
        output: the folder to write; it must not hold anything yet, and appears only when all is written.
        read_as: the format to read, or ``auto`` to tell it by what is there.
        source: opens ``data`` as COCO or LVIS annotation files.
        progress: told how far it is.

    Returns:
        ``{"data", "read_as", "to", "output", "splits": {split: {"images", "left_out"}}}``; ``left_out`` counts what the
        format written cannot hold.

    Raises:
        DataError: if something cannot be read, with file and line.
        ConfigError: if ``output`` is not new.
    """
    read_as, splits = read_splits(data, read_as, source)
    with new_folder(output) as folder:
        if to == "yolo":
            left_out = yolo.write(splits, folder, progress)
        elif to == "voc":
            left_out = voc.write(splits, folder, progress)
        else:
            left_out = coco_lvis.write(splits, folder, "lvis" if to == "lvis" else "coco", progress)
    for split, annotated in splits.items():
        if annotated.federated and to != "lvis":
            left_out[split]["federated fields of images"] = annotated.count
    return {
        "data": data,
        "read_as": read_as,
        "to": to,
        "output": str(output),
        "splits": {
            split: {"images": annotated.count, "left_out": dict(left_out[split])} for split, annotated in splits.items()
        },
    }


def read_splits(data: str, read_as: str, source: Callable[[], DataSource]) -> tuple[str, Mapping[str, Annotated]]:
    """The format of a data set, ``read_as`` unless that is ``auto``, and its splits."""
    place = Path(data)
    if read_as == "auto" and place.exists():
        if yolo.find_description(place) is not None:
            read_as = "yolo"
        elif voc.find_root(place) is not None:
            read_as = "voc"
    if read_as == "yolo":
        return read_as, yolo.read(place)
    if read_as == "voc":
        return read_as, voc.read(place)
    opened = source()
    names = list(dict.fromkeys(opened.files.values()))  # a lone file that serves as both is the training split
    splits = {"train" if file == opened.files.get("train") else "val": file for file in names}
    opened_splits = {split: of_store(opened.open(split)) for split in splits}
    return "lvis" if any(split.federated for split in opened_splits.values()) else "coco", opened_splits
