"""The doctor: everything that is wrong with a data set's files, each with the id of its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aegl.data.json_values import is_whole
from aegl.data.masks import MIN_CORNERS
from aegl.data.preprocess import UNREADABLE
from aegl.data.records import read_annotation_file, record_problems
from aegl.data.source import DataSource
from aegl.data.store import NO_MASK, AnnotationStore
from aegl.errors import DataError
from aegl.progress import Progress

SHOWN = 50
"""Problems of one kind listed per split; all are counted."""
ERROR, WARNING = "error", "warning"
NOT_CHECKED = "not checked"
"""Kind of the problem that records are too broken to look at anything else."""


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


class _Findings:
    """Problems, counted by kind; of each kind the first few are kept, however many there are."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Problem]] = {}
        self._counts = Counter[str]()

    def add(self, problems: Iterable[Problem]) -> None:
        """Take note of problems."""
        for problem in problems:
            self._counts[problem.kind] += 1
            kept = self._kept.setdefault(problem.kind, [])
            if len(kept) < SHOWN:
                kept.append(problem)

    @property
    def sound(self) -> bool:
        """Whether there is no error."""
        return not any(kept[0].severity == ERROR for kept in self._kept.values())

    def to_dict(self) -> dict[str, Any]:
        """Counts, and of each kind of problem the first few, errors before warnings."""
        kinds = sorted(self._kept, key=lambda kind: self._kept[kind][0].severity != ERROR)
        return {
            "num_problems": self._counts.total(),
            "by_kind": {kind: self._counts[kind] for kind in kinds},
            "problems": [asdict(problem) for kind in kinds for problem in self._kept[kind]],
        }


@dataclass(frozen=True)
class _Report:
    """What was found in one annotation file.

    Args:
        images: number of image records.
        annotations: number of annotation records.
        category_ids: ids of the categories.
        bands: classes per band name of the file.
        findings: what is wrong.
    """

    images: int
    annotations: int
    category_ids: frozenset[int]
    bands: dict[str, int]
    findings: _Findings

    def to_dict(self) -> dict[str, Any]:
        """Counts and problems."""
        return {
            "images": self.images,
            "annotations": self.annotations,
            "classes": len(self.category_ids),
            "bands": self.bands,
            **self.findings.to_dict(),
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
    ok = all(report.findings.sound for report in by_file.values())
    return {"data": source.name, "ok": ok, "splits": {split: report.to_dict() for split, report in reports.items()}}


def _check_split(source: DataSource, split: str, progress: Progress) -> _Report:
    file = source.files[split]
    if not file.is_file():
        raise DataError(f"data={source.name}: {file}: no such annotation file{source.remedy}")
    try:
        store = source.open(split)
    except DataError as error:
        return _check_records(file, error, progress)
    findings = _Findings()
    findings.add(_box_problems(store))
    findings.add(_mask_problems(store))
    if split == "train" and file != source.files.get("val"):  # a lone file may be anything
        findings.add(_count_problems(store))
    progress.start(f"check {split} images", len(store), "image")
    findings.add(_image_problems(store, progress))
    progress.finish()
    categories = store.categories
    bands = dict(Counter(categories.frequency or ()))
    return _Report(len(store), store.num_annotations, frozenset(categories.ids.tolist()), bands, findings)


def _check_records(file: Path, refused: DataError, progress: Progress) -> _Report:
    """Of a file that no store can be built of: every record that is the reason."""
    tables = read_annotation_file(file, progress)
    findings = _Findings()
    findings.add(Problem(ERROR, *problem) for problem in record_problems(tables))
    if findings.sound:
        raise refused  # for another reason than its records
    rest = "boxes, masks, counts and images were not looked at: mend the records first"
    findings.add([Problem(WARNING, NOT_CHECKED, None, rest)])
    ids = frozenset(r["id"] for r in tables["categories"] if isinstance(r, dict) and is_whole(r.get("id")))
    return _Report(len(tables["images"]), len(tables["annotations"]), ids, {}, findings)


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
        reports["val"].findings.add([Problem(ERROR, "different categories", None, message)])


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
    for row in np.flatnonzero(store.mask_kinds == NO_MASK):
        key = int(store.ann_ids[row])
        yield Problem(WARNING, "no mask", key, f"annotation {key}: has no segmentation, so it cannot be trained on")
    rows, corners = store.polygon_corners()
    for polygon in np.flatnonzero(corners < MIN_CORNERS):
        key = int(store.ann_ids[rows[polygon]])
        message = f"annotation {key}: a polygon of {corners[polygon]} corners has no area"
        yield Problem(WARNING, "broken polygon", key, message)


def _count_problems(store: AnnotationStore) -> Iterator[Problem]:
    categories, labels = store.categories, np.asarray(store.ann_labels, dtype=np.int64)
    held = np.unique(store.ann_image * max(store.num_classes, 1) + labels) % max(store.num_classes, 1)
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
