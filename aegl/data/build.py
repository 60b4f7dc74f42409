"""From an annotation file to an :class:`AnnotationStore`, once; later calls reopen it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from aegl.data.categories import CategoryTable
from aegl.data.records import FEDERATED_KEYS, read_annotation_file, record_problems, refuse
from aegl.data.segmentations import compressed_counts
from aegl.data.store import (
    FORMAT_VERSION,
    META_FILE,
    NO_MASK,
    POLYGONS,
    RLE,
    AnnotationStore,
    without_lvis_prefix,
)
from aegl.errors import DataError, RunError

_SETTLED = 2_000_000_000
"""Nanoseconds after which a changed file is sure to have another time of change."""


def cache_root() -> Path:
    """Folder of everything aegl builds once: the environment variable ``AEGL_CACHE``, or ``~/.cache/aegl``."""
    return Path(os.environ.get("AEGL_CACHE") or Path.home() / ".cache" / "aegl")


def build_store(
    annotation_file: str | Path, *, image_dirs: Sequence[str | Path] = (), cache_dir: str | Path | None = None
) -> AnnotationStore:
    """Open the store of an annotation file, building it if this content was never built.

    Args:
        annotation_file: COCO, LVIS v1 or LVIS v0.5 JSON.
        image_dirs: where images lie; besides these they are looked for beside the file and in ``images/`` beside it
            (of a link, beside the link and what it points to).
        cache_dir: folder of the stores; default below :func:`cache_root`.

    Raises:
        DataError: if the file is missing, broken or inconsistent; every bad record is named with its id.
        RunError: if the cache cannot be written.
    """
    given, file = Path(annotation_file).absolute(), Path(annotation_file).resolve()
    if not file.is_file():
        raise DataError(f"{annotation_file}: no such annotation file")
    folders = [Path(folder).resolve() for folder in image_dirs]
    for place in (given.parent, file.parent):
        folders += [place, place / "images"]
    stores = Path(cache_dir) if cache_dir is not None else cache_root() / "stores"
    digest = _hash(file, stores)
    key = "\n".join([digest, str(FORMAT_VERSION), str(file), *map(str, folders)])
    folder = stores / f"{file.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not (folder / META_FILE).is_file():
        columns, meta = _convert(file, digest, folders)
        _write(folder, columns, meta)
    return AnnotationStore.open(folder)


@contextmanager
def writing_cache(place: Path) -> Iterator[None]:
    """Turn what the disk refuses into a :class:`RunError` that says what to do; ``place`` is for the message."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"{place}: the cache cannot be written ({reason}); set AEGL_CACHE to another folder") from error


def _hash(file: Path, stores: Path) -> str:
    """SHA-256 of a file; remembered by size and time of change, as a large file takes seconds.

    Not of a file just written: another of its size could take its place within one tick of the file system's clock.
    """
    stat = file.stat()
    key = hashlib.sha256(f"{file}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:24]
    remembered = stores / ".hashes" / key
    if remembered.is_file():
        return remembered.read_text(encoding="ascii")
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    if time.time_ns() - stat.st_mtime_ns < _SETTLED:
        return digest
    with writing_cache(stores):
        remembered.parent.mkdir(parents=True, exist_ok=True)
        temporary = remembered.with_suffix(f".{os.getpid()}")
        temporary.write_text(digest, encoding="ascii")
        temporary.replace(remembered)
    return digest


def _convert(file: Path, digest: str, folders: Sequence[Path]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    content = read_annotation_file(file)
    refuse(file, list(record_problems(content)))
    categories = CategoryTable.from_records(content["categories"])
    images, annotations = content["images"], content["annotations"]
    image_ids = np.asarray([image["id"] for image in images], dtype=np.int64)
    row_of = {key: row for row, key in enumerate(image_ids.tolist())}
    ann_image = np.asarray([row_of[a["image_id"]] for a in annotations], dtype=np.int64)
    order = np.argsort(ann_image, kind="stable")
    annotations = [annotations[i] for i in order]
    sizes = np.asarray([(image["height"], image["width"]) for image in images], dtype=np.int32).reshape(-1, 2)
    columns: dict[str, np.ndarray] = {
        "image_ids": image_ids,
        "image_sizes": sizes,
        "ann_offsets": _offsets(np.bincount(ann_image, minlength=len(images))),
        **_names(images),
        **_annotation_columns(annotations, categories),
        **_mask_columns(annotations, sizes[ann_image[order]]),
        **_federated_columns(images, categories),
    }
    meta: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "content_hash": digest,
        "source": str(file),
        "image_dirs": [str(folder) for folder in dict.fromkeys(folders)],
        "federated": any("neg_category_ids" in image for image in images),
        "categories": categories.to_dict(),
    }
    return columns, meta


def _offsets(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def _names(images: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    encoded = [_image_name(image).encode() for image in images]
    return {
        "image_name_offsets": _offsets([len(name) for name in encoded]),
        "image_name_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
    }


def _image_name(image: dict[str, Any]) -> str:
    """Path below the images' folder: LVIS names files by ``coco_url``, whose folder tells train2017 from val2017."""
    url = image.get("coco_url") or ""
    name = image.get("file_name") or ""
    if name and not url.endswith((f"/{name}", f"/{without_lvis_prefix(name)}")):
        return str(name)
    return "/".join(url.split("/")[-2:]) if url else f"{int(image['id']):012d}.jpg"


def _annotation_columns(annotations: Sequence[dict[str, Any]], categories: CategoryTable) -> dict[str, np.ndarray]:
    boxes = np.asarray([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    areas = [
        a["area"] if a.get("area") is not None else w * h for a, (_, _, w, h) in zip(annotations, boxes, strict=True)
    ]
    category_ids = np.asarray([a["category_id"] for a in annotations], dtype=np.int64)
    return {
        "ann_ids": np.asarray([a["id"] for a in annotations], dtype=np.int64),
        "ann_labels": categories.labels_of(category_ids).astype(np.int32),
        "ann_boxes_xywh": boxes,
        "ann_areas": np.asarray(areas, dtype=np.float64),
        "ann_crowd": np.asarray([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
        "ann_ignore": np.asarray([bool(a.get("ignore", 0)) for a in annotations], dtype=bool),
    }


def _mask_columns(annotations: Sequence[dict[str, Any]], sizes: np.ndarray) -> dict[str, np.ndarray]:
    kinds, rings, points, rles, num_rings = [], [], [], [], []
    for annotation, (height, width) in zip(annotations, sizes.tolist(), strict=True):
        segmentation = annotation.get("segmentation") or []
        polygons = segmentation if isinstance(segmentation, list) else []
        counts = compressed_counts(segmentation, (height, width)) if isinstance(segmentation, dict) else b""
        kinds.append(RLE if counts else POLYGONS if polygons else NO_MASK)
        for polygon in polygons:
            points.append(np.asarray(polygon, dtype=np.float64).reshape(-1, 2))
            rings.append(len(points[-1]))
        num_rings.append(len(polygons))
        rles.append(counts)
    kind = np.asarray(kinds, dtype=np.uint8)
    return {
        "mask_kind": kind,
        "ring_offsets": _offsets(num_rings),
        "point_offsets": _offsets(rings),
        "points": np.concatenate([np.zeros((0, 2)), *points]),
        "rle_offsets": _offsets([len(counts) for counts in rles]),
        "rle_bytes": np.frombuffer(b"".join(rles), dtype=np.uint8),
        "rle_sizes": np.where((kind == RLE)[:, None], sizes, 0).astype(np.int32).reshape(-1, 2),
    }


def _federated_columns(images: Sequence[dict[str, Any]], categories: CategoryTable) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for name, key in zip(("neg", "not_exhaustive"), FEDERATED_KEYS, strict=True):
        lists = [image.get(key) or [] for image in images]
        values = np.asarray([value for entries in lists for value in entries], dtype=np.int64)
        columns[f"{name}_offsets"] = _offsets([len(entries) for entries in lists])
        columns[f"{name}_values"] = categories.labels_of(values).astype(np.int32)
    return columns


def _write(folder: Path, columns: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Write beside the final place and rename: a folder of that name that has its meta file is always complete."""
    with writing_cache(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            temporary = Path(scratch) / "store"
            temporary.mkdir()
            for name, column in columns.items():
                np.save(temporary / f"{name}.npy", column)
            (temporary / META_FILE).write_text(json.dumps(meta), encoding="utf-8")
            _move(temporary, folder)


def _move(temporary: Path, folder: Path) -> None:
    if folder.is_dir() and not (folder / META_FILE).is_file():
        shutil.rmtree(folder)  # left behind half-written
    try:
        temporary.replace(folder)
    except OSError:
        if not (folder / META_FILE).is_file():
            raise
        # Another process was quicker with the same content.
