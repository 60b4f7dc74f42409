"""Annotation files of COCO and LVIS, written record by record."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
import yaml

from aegl.data.convert.model import Annotated, Picture, Thing
from aegl.progress import Progress

RARE, COMMON = 10, 100
"""Largest number of training images of LVIS's rare and common classes."""
DESCRIPTION = "data.yaml"


def write(
    splits: Mapping[str, Annotated], folder: Path, flavour: Literal["coco", "lvis"], progress: Progress
) -> dict[str, Counter[str]]:
    """Write ``<split>.json`` of every split and a ``data.yaml`` that names them; returns what was left out of each.

    ``lvis`` counts images and instances of each class in the training split and bands the classes by them; classes
    that are not in an image of exhaustively annotated data become negative there, which is what they are. LVIS has no
    crowds. ``coco`` has no federated fields.
    """
    counts = _counts(splits["train"]) if flavour == "lvis" and "train" in splits else None
    left_out = {}
    for split, annotated in splits.items():
        progress.start(f"write {split}.json", annotated.count, "image")
        left_out[split] = write_split(annotated, folder / f"{split}.json", flavour, counts, progress)
        progress.finish()
    _describe(splits, folder, flavour)
    return left_out


def write_split(
    annotated: Annotated,
    path: Path,
    flavour: Literal["coco", "lvis"],
    counts: tuple[np.ndarray, np.ndarray] | None,
    progress: Progress,
) -> Counter[str]:
    """Write one file; returns how many of what was left out. ``counts``: ``[C]`` training images and instances."""
    left_out = Counter[str]()
    ids = annotated.categories.ids.tolist()
    with path.open("w", encoding="utf-8") as stream, tempfile.TemporaryFile("w+", encoding="utf-8") as spool:
        stream.write('{"info": {"description": "written by aegl"}, "images": [')
        number = 0
        for position, picture in enumerate(annotated.pictures()):
            _append(stream, position, _image_record(picture, annotated, ids, flavour))
            for thing in picture.things:
                if flavour == "lvis" and thing.crowd:
                    left_out["crowds"] += 1
                    continue
                _append(spool, number, _annotation_record(thing, picture, ids, number + 1, flavour))
                number += 1
            progress.update(1)
        stream.write('], "annotations": [')
        spool.seek(0)
        while block := spool.read(2**20):
            stream.write(block)
        records = _category_records(annotated, counts, flavour)
        stream.write(f'], "categories": {json.dumps(records)}}}\n')
    return left_out


def _append(stream: TextIO, position: int, record: dict[str, Any]) -> None:
    stream.write(f"{',' if position else ''}\n{json.dumps(record)}")


def _image_record(picture: Picture, annotated: Annotated, ids: list[int], flavour: str) -> dict[str, Any]:
    record = {"id": picture.id, "file_name": picture.name, "height": picture.height, "width": picture.width}
    if flavour == "coco":
        return record
    neg: Any = picture.neg
    if not annotated.federated:
        crowded = {thing.label for thing in picture.things if thing.crowd}
        neg = sorted(set(range(len(ids))) - {thing.label for thing in picture.things})
        record["not_exhaustive_category_ids"] = [ids[label] for label in sorted(crowded)]
    else:
        record["not_exhaustive_category_ids"] = [ids[label] for label in picture.not_exhaustive]
    return {**record, "neg_category_ids": [ids[label] for label in neg]}


def _annotation_record(thing: Thing, picture: Picture, ids: list[int], number: int, flavour: str) -> dict[str, Any]:
    segmentation: Any = [polygon.reshape(-1).tolist() for polygon in thing.polygons]
    if thing.rle is not None:
        segmentation = {"size": [picture.height, picture.width], "counts": thing.rle.decode("ascii")}
    record = {
        "id": number if thing.id is None else thing.id,
        "image_id": picture.id,
        "category_id": ids[thing.label],
        "bbox": list(thing.box),
        "area": thing.area,
        "segmentation": segmentation,
    }
    if flavour == "coco":
        record["iscrowd"] = int(thing.crowd)
    return {**record, "ignore": 1} if thing.ignore else record


def _category_records(
    annotated: Annotated, counts: tuple[np.ndarray, np.ndarray] | None, flavour: str
) -> list[dict[str, Any]]:
    table = annotated.categories
    records: list[dict[str, Any]] = [
        {"id": key, "name": name} for key, name in zip(table.ids.tolist(), table.names, strict=True)
    ]
    if flavour == "coco":
        return records
    images, instances = counts or (table.image_counts, table.instance_counts)
    for label, record in enumerate(records):
        if images is not None:
            record["image_count"] = int(images[label])
            record["frequency"] = "r" if images[label] <= RARE else "c" if images[label] <= COMMON else "f"
        if instances is not None:
            record["instance_count"] = int(instances[label])
    return records


def _counts(train: Annotated) -> tuple[np.ndarray, np.ndarray]:
    """``[C]`` images and ``[C]`` instances of each class, crowds excepted."""
    images, instances = (np.zeros(len(train.categories), dtype=np.int64) for _ in range(2))
    for picture in train.pictures():
        labels = [thing.label for thing in picture.things if not thing.crowd]
        np.add.at(instances, labels, 1)
        images[list(set(labels))] += 1
    return images, instances


def _describe(splits: Mapping[str, Annotated], folder: Path, flavour: str) -> None:
    """The images lie where they lay; the description says where."""
    places = dict.fromkeys(str(place) for annotated in splits.values() for place in annotated.image_dirs)
    content = {"path": ".", **{split: f"{split}.json" for split in splits}, "images": list(places) or ["."]}
    (folder / DESCRIPTION).write_text(yaml.safe_dump({**content, "protocol": flavour}, sort_keys=False), "utf-8")
