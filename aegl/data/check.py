"""The doctor: everything that is wrong with a data set's files, each with the id of its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aegl.data.json_values import is_whole
from aegl.data.masks import MIN_CORNERS
from aegl.data.preprocess import UNREADABLE
from aegl.data.records import read_annotation_file, record_problems
from aegl.data.source import DataSource
from aegl.data.store import AnnotationStore
from aegl.errors import DataError
from aegl.progress import Progress

SHOWN = 50
"""Problems of one kind listed per split; all are counted."""
ERROR, WARNING = "error", "warning"


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


@dataclass(frozen=True)
class _Report:
    """What was found in one annotation file.

    Args:
        images: number of image records.
        annotations: number of annotation records.
        category_ids: ids of the categories.
        bands: classes per band name of the file.
        problems: all of them.
    """

    images: int
    annotations: int
    category_ids: frozenset[int]
    bands: dict[str, int]
    problems: list[Problem]

    def to_dict(self) -> dict[str, Any]:
        """Counts, and of each kind of problem the first few, errors before warnings."""
        by_kind = Counter(problem.kind for problem in self.problems)
        ordered = sorted(self.problems, key=lambda problem: problem.severity != ERROR)
        shown = [p for kind in dict.fromkeys(p.kind for p in ordered) for p in _first(ordered, kind)]
        return {
            "images": self.images,
            "annotations": self.annotations,
            "classes": len(self.category_ids),
            "bands": self.bands,
            "num_problems": len(self.problems),
            "by_kind": {kind: by_kind[kind] for kind in dict.fromkeys(p.kind for p in shown)},
            "problems": [asdict(problem) for problem in shown],
        }


def check_source(source: DataSource, *, progress: Progress) -> dict[str, Any]:
    """Check every split of a data set; a file that serves as both is checked once.

    Returns:
        ``{"data", "ok", "splits": {split: {images, annotations, classes, bands, num_problems, by_kind, problems}}}``;
        ``ok`` unless there are errors, ``problems`` up to :data:`SHOWN` of each kind.

    Raises:
        DataError: if an annotation file is missing or no JSON.
    """
    by_file: dict[Path, _Report] = {}
    for split, file in source.files.items():
        if file not in by_file:
            by_file[file] = _check_split(source, split, progress)
    reports = {split: by_file[file] for split, file in source.files.items()}
    _compare(reports)
    ok = not any(problem.severity == ERROR for report in by_file.values() for problem in report.problems)
    return {"data": source.name, "ok": ok, "splits": {split: report.to_dict() for split, report in reports.items()}}


def _check_split(source: DataSource, split: str, progress: Progress) -> _Report:
    file = source.files[split]
    if not file.is_file():
        raise DataError(f"data={source.name}: {file}: no such annotation file{source.remedy}")
    content = read_annotation_file(file)
    problems = [Problem(ERROR, *problem) for problem in record_problems(content)]
    bands: dict[str, int] = {}
    if problems:
        rest = "boxes, masks, counts and images were not looked at: mend the records first"
        problems.append(Problem(WARNING, "not checked", None, rest))
    else:
        store = source.open(split)
        problems += [*_box_problems(store), *_mask_problems(store)]
        if split == "train" and file != source.files.get("val"):  # a lone file may be anything
            problems += _count_problems(store)
        progress.start(f"check {split} images", len(store), "image")
        problems += _image_problems(store, progress)
        progress.finish()
        bands = dict(Counter(store.categories.frequency or ()))
    ids = frozenset(r["id"] for r in content["categories"] if isinstance(r, dict) and is_whole(r.get("id")))
    return _Report(len(content["images"]), len(content["annotations"]), ids, bands, problems)


def _compare(reports: Mapping[str, _Report]) -> None:
    """Note among the problems of val where its classes are not those of train."""
    if "train" not in reports or "val" not in reports:
        return
    train, val = reports["train"].category_ids, reports["val"].category_ids
    if train != val:
        message = (
            f"its {len(val)} category ids are not the {len(train)} of train: {len(train - val)} are missing and "
            f"{len(val - train)} are new; both files must list the same categories"
        )
        reports["val"].problems.append(Problem(ERROR, "different categories", None, message))


def _first(problems: Sequence[Problem], kind: str) -> list[Problem]:
    return list(islice((problem for problem in problems if problem.kind == kind), SHOWN))


def _box_problems(store: AnnotationStore) -> Iterator[Problem]:
    boxes = np.asarray(store.ann_boxes_xywh)
    sizes = np.asarray(store.image_sizes)[store.ann_image]
    for row in np.flatnonzero((boxes[:, 2] <= 0) | (boxes[:, 3] <= 0)):
        key = int(store.ann_ids[row])
        yield Problem(WARNING, "degenerate box", key, f"annotation {key}: box {boxes[row].tolist()} has no area")
    # A pixel of slack: many files round outwards.
    outside = (boxes[:, :2] < -1).any(1) | (boxes[:, :2] + boxes[:, 2:] > sizes[:, ::-1] + 1).any(1)
    for row in np.flatnonzero(outside):
        key, (height, width) = int(store.ann_ids[row]), sizes[row].tolist()
        message = f"annotation {key}: box {boxes[row].tolist()} reaches outside its image, {width} wide, {height} high"
        yield Problem(WARNING, "box outside", key, message)


def _mask_problems(store: AnnotationStore) -> Iterator[Problem]:
    for row in range(store.num_annotations):
        key = int(store.ann_ids[row])
        segmentation = store.segmentation(row)
        if segmentation is None:
            yield Problem(WARNING, "no mask", key, f"annotation {key}: has no segmentation, so it cannot be trained on")
        elif isinstance(segmentation, list):
            for corners in filter(lambda corners: corners < MIN_CORNERS, map(len, segmentation)):
                message = f"annotation {key}: a polygon of {corners} corners has no area"
                yield Problem(WARNING, "broken polygon", key, message)


def _count_problems(store: AnnotationStore) -> Iterator[Problem]:
    categories, labels = store.categories, np.asarray(store.ann_labels)
    held = np.unique(np.stack([store.ann_image, labels], axis=1), axis=0)[:, 1]
    for name, stated, counted in (
        ("image_count", categories.image_counts, held),
        ("instance_count", categories.instance_counts, labels),
    ):
        if stated is None:
            continue
        real = np.bincount(counted, minlength=store.num_classes)
        for label in np.flatnonzero(real != stated):
            key = int(categories.ids[label])
            message = (
                f"category {key} ({categories.names[label]}): {name} is {stated[label]}, the file has {real[label]}"
            )
            yield Problem(WARNING, "wrong count", key, message)


def _image_problems(store: AnnotationStore, progress: Progress) -> Iterator[Problem]:
    missing: dict[Path, list[int]] = {}
    for row in range(len(store)):
        progress.update(1)
        try:
            path = store.image_path(row)
        except DataError:
            missing.setdefault(store.image_candidates(row)[0].parent, []).append(row)
            continue
        yield from _file_problems(path, int(store.image_ids[row]), store.image_sizes[row].tolist())
    for folder, rows in missing.items():
        key, name = int(store.image_ids[rows[0]]), Path(store.image_name(rows[0])).name
        message = (
            f"{len(rows)} of {len(store)} images are missing, looked for first in {folder}: {name} (image {key})"
            f"{' and others' if len(rows) > 1 else ''}; fetch them, or name their folder with `images:` in a data YAML"
        )
        yield Problem(ERROR, "missing images", key, message)


def _file_problems(path: Path, key: int, size: list[int]) -> Iterator[Problem]:
    try:
        with Image.open(path) as image:
            width, height = image.size
            image.draft(None, (1, 1))  # of a JPEG only an eighth of the pixels, but all of the file
            image.load()
    except UNREADABLE as error:
        yield Problem(ERROR, "unreadable image", key, f"image {key}: {path} cannot be read ({error})")
        return
    if [height, width] != size:
        message = f"image {key}: {path} is {width}x{height}, the annotations say {size[1]}x{size[0]}"
        yield Problem(ERROR, "wrong image size", key, message)
