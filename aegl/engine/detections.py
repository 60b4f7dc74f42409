"""Detections to be scored without a model: of a results file, or of a run's folder, finished or not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from aegl.engine.runs import PREDICTIONS_FILE, SHARDS_FOLDER
from aegl.errors import DataError
from aegl.metrics import DetectionTable, shards

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.progress import Progress

LOGGER = logging.getLogger("aegl")


def read_detections(path: Path, store: AnnotationStore, progress: Progress) -> DetectionTable:
    """Read what ``predictions=`` names.

    Args:
        path: a results file, a run's folder, or the folder in it where an interrupted evaluation left its detections.
        store: ground truth they were made for.
        progress: told how far reading is. Images that an interrupted evaluation has not come to are a warning.

    Raises:
        DataError: if there are none, or they cannot be read or do not fit ``store``.
    """
    if not path.is_dir():
        return DetectionTable.from_results_json(path, store, progress)
    # Shards are there only while an evaluation is not finished, so they are newer than a results file beside them.
    for folder in (path, path / SHARDS_FOLDER):
        if (folder / shards.META_FILE).is_file():
            return _read_shards(folder, store)
    if not (path / PREDICTIONS_FILE).is_file():
        raise DataError(f"{path}: holds no {PREDICTIONS_FILE} and no {SHARDS_FOLDER}/: name a results file or a run")
    return DetectionTable.from_results_json(path / PREDICTIONS_FILE, store, progress)


def _read_shards(folder: Path, store: AnnotationStore) -> DetectionTable:
    table, images = shards.read(folder, store)
    if images < len(store.image_ids):
        LOGGER.warning(
            "%s: detections of %d of %d images only, the evaluation was interrupted; the other images count as images "
            "without detections",
            folder,
            images,
            len(store.image_ids),
        )
    return table
