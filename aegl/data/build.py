"""From an annotation file to an :class:`AnnotationStore`, once; later calls reopen it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aegl.data.columns import ColumnWriter
from aegl.data.json_tables import JsonTables
from aegl.data.records import REQUIRED, RecordProblem, checked_records, read_annotation_file, refuse
from aegl.data.store import FORMAT_VERSION, META_FILE, AnnotationStore
from aegl.errors import DataError, RunError
from aegl.progress import Progress, SilentProgress

LOGGER = logging.getLogger("aegl")
_WORTH_A_BAR = 32_000_000
"""Bytes of an annotation file from which its reading takes seconds."""
_TELL_EVERY = 5000
"""Records from one report of progress to the next."""
_SETTLED = 2_000_000_000
"""Nanoseconds after which a changed file is sure to have another time of change."""


def cache_root() -> Path:
    """Folder of everything aegl builds once: the environment variable ``AEGL_CACHE``, or ``~/.cache/aegl``."""
    return Path(os.environ.get("AEGL_CACHE") or Path.home() / ".cache" / "aegl")


def build_store(
    annotation_file: str | Path,
    *,
    image_dirs: Sequence[str | Path] = (),
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> AnnotationStore:
    """Open the store of an annotation file, building it if this content was never built.

    Args:
        annotation_file: COCO, LVIS v1 or LVIS v0.5 JSON.
        image_dirs: where images lie; besides these they are looked for beside the file and in ``images/`` beside it
            (of a link, beside the link and what it points to).
        cache_dir: folder of the stores; default below :func:`cache_root`.
        progress: told how far reading is.

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
        _build(folder, file, digest, folders, progress or SilentProgress())
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


def _build(folder: Path, file: Path, digest: str, folders: Sequence[Path], progress: Progress) -> None:
    """Write beside the final place and rename: a folder of that name that has its meta file is always complete."""
    size = file.stat().st_size
    if size < _WORTH_A_BAR:
        progress = SilentProgress()
    else:
        LOGGER.info("reading %s (%.0f MB); from now on it is only reopened", file, size / 1e6)
    with writing_cache(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            temporary = Path(scratch) / "store"
            temporary.mkdir()
            meta: dict[str, Any] = {
                "format_version": FORMAT_VERSION,
                "content_hash": digest,
                "source": str(file),
                "image_dirs": [str(folder) for folder in dict.fromkeys(folders)],
                **_convert(file, Path(scratch), temporary, progress),
            }
            (temporary / META_FILE).write_text(json.dumps(meta), encoding="utf-8")
            _move(temporary, folder)


def _convert(file: Path, scratch: Path, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the columns of an annotation file into ``folder``; returns what of its content is no column."""
    tables = read_annotation_file(file, progress)
    columns = ColumnWriter(scratch)
    refuse(file, _problems_else_written(tables, columns, progress))
    return columns.write(folder)


def _problems_else_written(tables: JsonTables, columns: ColumnWriter, progress: Progress) -> Iterator[RecordProblem]:
    """What is wrong with the records; as long as nothing is, they are written."""
    total = sum(len(tables[table]) for table in REQUIRED)
    progress.start("build the annotation store", total, "record")
    sound = True
    for number, (table, record, problems) in enumerate(checked_records(tables), start=1):
        if problems:
            sound = False
            yield from problems
        elif sound and record is not None:
            columns.add(table, record)
        if number % _TELL_EVERY == 0:
            progress.update(_TELL_EVERY)
    progress.update(total % _TELL_EVERY)
    progress.finish()


def _move(temporary: Path, folder: Path) -> None:
    if folder.is_dir() and not (folder / META_FILE).is_file():
        shutil.rmtree(folder)  # left behind half-written
    try:
        temporary.replace(folder)
    except OSError:
        if not (folder / META_FILE).is_file():
            raise
        # Another process was quicker with the same content.
