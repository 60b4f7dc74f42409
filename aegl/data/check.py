"""The doctor: everything that is wrong with a data set's files, each with the id of its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco_mask

from aegl.data.records import id_problems, read_annotation_file
from aegl.data.source import DataSource
from aegl.data.store import AnnotationStore
from aegl.errors import DataError
from aegl.progress import Progress

SHOWN = 200
"""Problems listed per split; all are counted."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        severity: ``error`` keeps the file from being used, ``warning`` does not.
        kind: what kind of problem.
        id: annotation or image id, or None.
        message: the problem in words.
    """

    severity: str
    kind: str
    id: int | None
    message: str


def check_source(source: DataSource, *, progress: Progress) -> dict[str, Any]:
    """Check every split of a data set.

    Returns:
        ``{"data", "ok", "splits": {split: {images, annotations, classes, bands, num_problems, by_kind, problems}}}``.

    Raises:
        DataError: if an annotation file is missing or no JSON.
    """
    splits = {split: _check_split(source, split, progress) for split in source.files}
    ok = not any(p["severity"] == "error" for report in splits.values() for p in report["problems"])
    return {"data": source.name, "ok": ok, "splits": splits}


def _check_split(source: DataSource, split: str, progress: Progress) -> dict[str, Any]:
    file = source.files[split]
    if not file.is_file():
        raise DataError(f"data={source.name}: {file}: no such annotation file{source.remedy}")
    content = read_annotation_file(file)
    problems = [Problem("error", kind, key, message) for kind, key, message in id_problems(content)]
    bands: dict[str, int] = {}
    if not problems:
        store = source.open(split)
        problems += [*_box_problems(store), *_mask_problems(store), *_count_problems(store, split)]
        problems += _image_problems(store, progress)
        bands = dict(Counter(store.categories.frequency or ()))
    return {
        "images": len(content["images"]),
        "annotations": len(content["annotations"]),
        "classes": len(content["categories"]),
        "bands": bands,
        "num_problems": len(problems),
        "by_kind": dict(Counter(problem.kind for problem in problems)),
        "problems": [asdict(problem) for problem in problems[:SHOWN]],
    }


def _box_problems(store: AnnotationStore) -> Iterator[Problem]:
    boxes = np.asarray(store.ann_boxes_xywh)
    sizes = np.asarray(store.image_sizes)[store.ann_image]
    for row in np.flatnonzero((boxes[:, 2] <= 0) | (boxes[:, 3] <= 0)):
        key = int(store.ann_ids[row])
        yield Problem("warning", "degenerate box", key, f"annotation {key}: box {boxes[row].tolist()} has no area")
    # A pixel of slack: many files round outwards.
    outside = (boxes[:, :2] < -1).any(1) | (boxes[:, :2] + boxes[:, 2:] > sizes[:, ::-1] + 1).any(1)
    for row in np.flatnonzero(outside):
        key, (height, width) = int(store.ann_ids[row]), sizes[row].tolist()
        message = f"annotation {key}: box {boxes[row].tolist()} reaches outside its image of {width}x{height}"
        yield Problem("warning", "box outside", key, message)


def _mask_problems(store: AnnotationStore) -> Iterator[Problem]:
    image = store.ann_image
    for row in range(store.num_annotations):
        key = int(store.ann_ids[row])
        segmentation = store.segmentation(row)
        if segmentation is None:
            yield Problem("warning", "no mask", key, f"annotation {key}: has no segmentation")
        elif isinstance(segmentation, dict):
            yield from _rle_problems(segmentation, key, store.image_sizes[image[row]].tolist())
        else:
            for polygon in segmentation:
                if len(polygon) < 3 or not np.isfinite(polygon).all():
                    message = f"annotation {key}: a polygon of {len(polygon)} points is no area"
                    yield Problem("warning", "broken polygon", key, message)


def _rle_problems(rle: dict[str, Any], key: int, size: list[int]) -> Iterator[Problem]:
    if rle["size"] != size:
        message = f"annotation {key}: its RLE is of {rle['size']}, the image of {size} (height, width)"
        yield Problem("error", "wrong RLE size", key, message)
        return
    try:
        coco_mask.area(rle)
        coco_mask.decode(rle)
    except (ValueError, TypeError) as error:
        yield Problem("error", "broken RLE", key, f"annotation {key}: its RLE cannot be decoded ({error})")


def _count_problems(store: AnnotationStore, split: str) -> Iterator[Problem]:
    stated = store.categories.image_counts
    if stated is None or split != "train":
        return
    pairs = np.unique(np.stack([store.ann_image, store.ann_labels], axis=1), axis=0)
    real = np.bincount(pairs[:, 1], minlength=store.num_classes)
    for label in np.flatnonzero(real != stated):
        message = (
            f"category {store.categories.ids[label]} ({store.categories.names[label]}): image_count says "
            f"{stated[label]}, but {real[label]} images hold it"
        )
        yield Problem("warning", "wrong count", int(store.categories.ids[label]), message)


def _image_problems(store: AnnotationStore, progress: Progress) -> Iterator[Problem]:
    missing: Counter[str] = Counter()
    progress.start("check images", len(store), "image")
    for row in range(len(store)):
        progress.update(1)
        try:
            path = store.image_path(row)
        except DataError:
            missing[str(store.image_candidates(row)[0].parent)] += 1
            continue
        yield from _file_problems(path, int(store.image_ids[row]), store.image_sizes[row].tolist())
    progress.finish()
    for folder, count in missing.items():
        yield Problem("error", "missing images", None, f"{count} images are missing, looked for first in {folder}")


def _file_problems(path: Path, key: int, size: list[int]) -> Iterator[Problem]:
    try:
        with Image.open(path) as image:
            width, height = image.size
            image.verify()
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        yield Problem("error", "unreadable image", key, f"image {key}: {path} cannot be read ({error})")
        return
    if [height, width] != size:
        message = f"image {key}: {path} is {width}x{height}, the annotations say {size[1]}x{size[0]}"
        yield Problem("error", "wrong image size", key, message)
