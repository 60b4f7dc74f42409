"""Evaluation of a model on a split: inference on every process, scoring on the main one, memory bounded.

Each process writes what it finds to disk, image by image. Whatever interrupts the evaluation, these files stay, and
``predictions=`` scores them.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aegl.engine.backend import Backend
from aegl.engine.distributed import World
from aegl.engine.nodes import shared_folder
from aegl.engine.postprocess import to_original
from aegl.engine.runs import PREDICTIONS_FILE, SHARDS_FOLDER
from aegl.engine.scorer import Scorer
from aegl.errors import DataError, RunError
from aegl.metadata import ModelMeta
from aegl.metrics import DetectionTable, shards
from aegl.types import Batch

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.progress import Progress

LOGGER = logging.getLogger("aegl")


def validate(
    backend: Backend,
    batches: Iterable[Batch],
    store: AnnotationStore,
    scorer: Scorer,
    *,
    conf: float,
    max_det: int,
    folder: Path,
    progress: Progress,
    world: World | None = None,
    save_predictions: bool = True,
) -> dict[str, Any]:
    """Run a model over a split and score what it finds. Collective.

    Args:
        backend: the model.
        batches: this process's share of the split, each image once over all processes.
        store: ground truth of the split.
        scorer: scores and writes ``metrics.json``.
        conf: lowest score to keep.
        max_det: most detections to keep per image.
        folder: the run's folder; the detections of every process lie there until they are scored. It need not exist on
            other machines than the main process's.
        progress: told of images and of scoring.
        world: the processes.
        save_predictions: write ``predictions.json`` (COCO results format) into ``folder``.

    Returns:
        The JSON of ``aegl val`` on the main process (see :meth:`Scorer.score`), an empty dictionary on the others.

    Raises:
        DataError: if the data's categories are not the model's.
        RunError: if a file cannot be written, or images are missing from the processes' shares.
    """
    require_same_classes(backend.meta, store)
    world = world or World()
    started = time.perf_counter()
    parts = folder / SHARDS_FOLDER
    if world.is_main:
        shards.create(parts, store)
    world.barrier()
    with shared_folder(parts, world) as own, shards.ShardWriter(own, world.rank) as writer:
        seen = _infer(backend, batches, store, writer, conf, max_det, progress, world)
    _require_all_images(int(world.sum_(torch.tensor([seen], device=world.device))), store)
    seconds = time.perf_counter() - started
    summary: dict[str, Any] = {}
    if world.is_main:
        table, seen = shards.read(parts, store)
        _require_all_images(seen, store)
        if save_predictions:
            _write_predictions(table, store, folder / PREDICTIONS_FILE)
        if table.masks is None:
            LOGGER.warning("the model gives no masks: only boxes are scored")
        summary = scorer.score(table, folder=folder, progress=progress, inference_seconds=seconds)
        del table  # it maps the files
        shutil.rmtree(parts, ignore_errors=True)
    else:
        LOGGER.info("process %d waits while the main process scores", world.rank)
    world.barrier()
    return summary


def require_same_classes(meta: ModelMeta, store: AnnotationStore) -> None:
    """Raise :class:`DataError` if the data's categories are not the model's."""
    if meta.category_ids != tuple(int(v) for v in store.categories.ids):
        raise DataError(
            f"the model knows {meta.num_classes} classes of {meta.data}, the data has {len(store.categories.ids)} and "
            "they are not the same: evaluate on data with the model's categories"
        )


def _infer(
    backend: Backend,
    batches: Iterable[Batch],
    store: AnnotationStore,
    writer: shards.ShardWriter,
    conf: float,
    max_det: int,
    progress: Progress,
    world: World,
) -> int:
    """Write the detections of this process's images; returns how many images those are."""
    seen = 0
    if world.is_main:
        progress.start("val", -(-len(store.image_ids) // world.size), "image")
    for batch in batches:
        detections = backend(batch.images.numpy())
        for row, image in enumerate(batch.image_index.tolist()):
            size, orig_size = batch.sizes[row].tolist(), batch.orig_sizes[row].tolist()
            found = to_original(detections, row, size=size, orig_size=orig_size, conf=conf, max_det=max_det)
            boxes = found.boxes_orig.copy()
            boxes[:, 2:] -= boxes[:, :2]
            masks = None if detections.masks is None else [mask["counts"] for mask in found.masks]
            writer.append(image, found.labels, found.scores, boxes, masks)
        seen += len(batch.image_index)
        if world.is_main:
            progress.update(len(batch.image_index))
    if world.is_main:
        progress.finish()
    return seen


def _require_all_images(seen: int, store: AnnotationStore) -> None:
    if seen != len(store.image_ids):
        raise RunError(
            f"{seen} images were evaluated, the split has {len(store.image_ids)}: a data loading process was lost"
        )


def _write_predictions(table: DetectionTable, store: AnnotationStore, path: Path) -> None:
    try:
        table.to_results_json(path, store)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error
