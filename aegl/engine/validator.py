"""Evaluation of a model on a split: inference on every process, scoring on the main one, memory bounded."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aegl.engine.backend import Backend
from aegl.engine.distributed import World
from aegl.engine.postprocess import to_original
from aegl.engine.runs import PREDICTIONS_FILE
from aegl.engine.scorer import Scorer
from aegl.errors import DataError, RunError
from aegl.metadata import ModelMeta
from aegl.metrics import DetectionTable, DetectionTableBuilder
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
        folder: the run's folder; shards of several processes lie there for a while.
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
    table, seen = _infer(backend, batches, store, conf, max_det, progress, world)
    table = _merge(table, seen, len(store.image_ids), folder, world)
    seconds = time.perf_counter() - started
    summary: dict[str, Any] = {}
    if world.is_main:
        if save_predictions:
            _write_predictions(table, store, folder / PREDICTIONS_FILE)
        summary = scorer.score(table, folder=folder, progress=progress, inference_seconds=seconds)
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
    conf: float,
    max_det: int,
    progress: Progress,
    world: World,
) -> tuple[DetectionTable, int]:
    """Detections of this process's images, and how many images those are."""
    builder = DetectionTableBuilder(with_masks=True)
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
            builder.append(image, found.labels, found.scores, boxes, [mask["counts"] for mask in found.masks])
        seen += len(batch.image_index)
        if world.is_main:
            progress.update(len(batch.image_index))
    if world.is_main:
        progress.finish()
    return builder.build(), seen


def _merge(table: DetectionTable, seen: int, expected: int, folder: Path, world: World) -> DetectionTable:
    """All processes' detections, sorted by image, on the main process: exchanged through files, never over the wire."""
    if world.size > 1:
        shards = folder / ".shards"
        if world.is_main:
            shutil.rmtree(shards, ignore_errors=True)
            shards.mkdir(parents=True)
        world.barrier()
        try:
            table.save(shards / f"{world.rank}.npz")
        except OSError as error:
            raise RunError(
                f"{shards}: cannot write the detections of process {world.rank} ({error.strerror})"
            ) from error
        seen = _total(seen, world)
        if world.is_main:
            table = DetectionTable.concatenate([DetectionTable.load(shards / f"{r}.npz") for r in range(world.size)])
            shutil.rmtree(shards)
    if seen != expected:
        raise RunError(f"{seen} images were evaluated, the split has {expected}: a data loading process was lost")
    # The order decides among equal scores; by image it does not depend on the number of processes.
    return table.take(np.argsort(table.image_index, kind="stable"))


def _total(count: int, world: World) -> int:
    return int(world.sum_(torch.tensor([count], device=world.device)))


def _write_predictions(table: DetectionTable, store: AnnotationStore, path: Path) -> None:
    try:
        table.to_results_json(path, store)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error
