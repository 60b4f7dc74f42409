"""From the configuration to a training run: the only place of the engine that knows how the parts fit together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from aegl.config import Config, complete_parts, to_yaml
from aegl.data.loader import train_loader
from aegl.data.samplers import EpochSampler
from aegl.engine import rng, runs
from aegl.engine.assembly import (
    check_callbacks,
    check_norm,
    iterations_of,
    loggers_of,
    plan_of,
    schedule_of,
    stepper_of,
    validation_of,
    watchdog_of,
)
from aegl.engine.auto_batch import with_batch_found
from aegl.engine.beginning import find_beginning
from aegl.engine.callbacks import Callback
from aegl.engine.checkpoint import Checkpoint
from aegl.engine.class_descriptions import describe_classes
from aegl.engine.distributed import World, join_world
from aegl.engine.nodes import load_main_checkpoint
from aegl.engine.restore import start_from
from aegl.engine.resume import begun, refuse_finished
from aegl.engine.speed import place
from aegl.engine.splits import Splits, open_splits, training_sampler, training_set
from aegl.engine.stages import BEFORE, freeze, has_stage_before, parts_of, stage_before
from aegl.engine.suggestion import suggest
from aegl.engine.trainer import Trainer
from aegl.engine.weights import WeightsFolder
from aegl.metadata import ModelMeta
from aegl.models.factory import AP_CONF, build_model
from aegl.models.mask_rcnn import MaskRCNN

if TYPE_CHECKING:
    from aegl.progress import Progress


@dataclass(frozen=True)
class _Parts:
    splits: Splits
    sampler: EpochSampler
    iterations: int
    model: MaskRCNN
    meta: ModelMeta


def train(
    config: Config,
    progress: Progress,
    callbacks: tuple[Callback, ...] = (),
    *,
    asked: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a model; under torchrun, this process's part of it.

    Args:
        config: the configuration; ``data`` is given. With ``resume`` only its ``device`` and ``workers`` count, besides
            what names the run (see :mod:`aegl.engine.resume`): the rest is read from the run's folder.
        progress: shown by the main process.
        callbacks: told of what happens, after those that write ``results.csv`` and show progress.
        asked: the keys that the user gave: a run that goes on must have been started with them.

    Returns:
        ``run``, ``last``, ``best`` (paths), ``iterations``, ``seconds``, ``metrics`` (summary of the last evaluation;
        empty on all processes but the main one), ``fitness`` of ``best.pt``, ``stopped`` (why a callback ended it
        early, or None) and ``ground_truth_hash``. The same is
        written into the run's folder as ``train.json``.

    Raises:
        AeglError: its kind says whether the configuration, the data, a checkpoint or the run itself is at fault.
    """
    with join_world(config.device) as world:
        check_norm(config, world)
        return _train(config, world, progress, callbacks, asked or {})


def _train(
    config: Config, world: World, progress: Progress, callbacks: tuple[Callback, ...], asked: Mapping[str, Any]
) -> dict[str, Any]:
    beginning = find_beginning(config, world, asked)
    if beginning.finished:
        return {**beginning.finished, "metrics": beginning.finished["metrics"] if world.is_main else {}}
    config, run, checkpoint = beginning.config, beginning.run, beginning.checkpoint
    if run is None:
        config = with_batch_found(config, world, progress)
    if checkpoint is None and has_stage_before(config):
        # What is wrong with this stage shall not be found out after hours of the one before.
        _prepare(config, checkpoint, world, progress)
        run = run or _new_run(config, world)
        config = _stage_before(config, run, world, progress, callbacks)
    parts = _prepare(config, checkpoint, world, progress)
    if run and checkpoint:
        refuse_finished(run, checkpoint, parts.iterations)
    # Only now is the request known to be sound: a refused one leaves no empty run behind.
    if world.is_main and checkpoint is None:
        suggest(config, asked)
    run = run or _new_run(config, world)
    result = _trainer(config, parts, run, checkpoint, world, progress, callbacks).run()
    weights = run / runs.WEIGHTS_FOLDER
    trained = {
        "run": str(run),
        "last": str(weights / "last.pt"),
        "best": str(weights / "best.pt"),
        "iterations": result.iterations,
        "seconds": result.seconds,
        "metrics": dict(result.metrics),
        "fitness": result.best,
        "stopped": result.stopped,
        "ground_truth_hash": parts.splits.val.content_hash,
    }
    if world.is_main:
        runs.write_text(run / runs.TRAINED_FILE, json.dumps(trained, indent=1, allow_nan=False) + "\n")
    return trained


def _stage_before(
    config: Config, run: Path, world: World, progress: Progress, callbacks: tuple[Callback, ...]
) -> Config:
    """Train the stage before, or what is left of it, and start this one from it."""
    before = stage_before(config, run)
    folder = run / BEFORE
    finished = (folder / runs.TRAINED_FILE).is_file
    if not json.loads(world.from_main(lambda: json.dumps(finished()))):
        goes_on = json.loads(world.from_main(lambda: json.dumps(begun(folder))))
        _train(before.model_copy(update={"resume": goes_on}), world, progress, callbacks, {})
    world.barrier()
    return config.model_copy(update={"weights": str(folder / runs.WEIGHTS_FOLDER / "best.pt")})


def model_meta(config: Config, splits: Splits, model: MaskRCNN) -> ModelMeta:
    """What the model must know of itself once it has left the data behind."""
    statistics, categories = splits.statistics, splits.train.categories
    return ModelMeta(
        names=tuple(categories.names),
        category_ids=tuple(int(v) for v in categories.ids),
        band_names=tuple(statistics.band_names),
        class_band=tuple(int(v) for v in statistics.class_band),
        model=config.model,
        method=config.method,
        data=splits.name,
        protocol=splits.protocol,
        imgsz=config.imgsz,
        max_size=config.max_size,
        stride=model.stride,
        pixel_mean=_rgb(model.get_buffer("pixel_mean")),
        pixel_std=_rgb(model.get_buffer("pixel_std")),
        conf=AP_CONF if config.conf is None else config.conf,
        iou=config.iou,
        max_det=config.max_det,
        mask_size=2 * config.mask.pool,
    )


def _new_run(config: Config, world: World) -> Path:
    """Make the run's folder on the main process, and tell the others which it is."""
    folder = ""
    if world.is_main:
        created = runs.create_run(config.project, config.name, verb="train", exist_ok=config.exist_ok)
        for stage in (created, created / BEFORE):
            runs.forget(stage)
        runs.write_text(created / runs.ARGS_FILE, to_yaml(complete_parts(config)))
        folder = str(created)
    return Path(world.broadcast_text(folder))


def _prepare(config: Config, checkpoint: Checkpoint | None, world: World, progress: Progress) -> _Parts:
    """Data, model and length of the run; where a wrong request is found out."""
    check_callbacks(config)
    splits = open_splits(config, world, progress if world.is_main else None)
    sampler = training_sampler(config, splits, world)
    iterations = iterations_of(config, sampler.epoch_length)
    rng.seed_all(config.seed)  # the same start on every process, and the same classifier for every run of a seed
    starts_elsewhere = checkpoint is not None or config.weights is not None or has_stage_before(config)
    model = build_model(config, splits.statistics, backbone_from_config=not starts_elsewhere)
    meta = model_meta(config, splits, model)
    reset = parts_of(model, config.stage.reset, "stage.reset")
    if checkpoint is None and not has_stage_before(config):
        start = load_main_checkpoint(Path(config.weights), world) if config.weights else None
        fresh = start_from(model, meta, start, classifier=config.box.classifier, reset=reset) if start else []
        describe_classes(model, meta, config, splits, start, fresh)
    freeze(model, config.stage.trainable)
    return _Parts(splits, sampler, iterations, place(model, world.device, alone=world.size == 1), meta)


def _trainer(
    config: Config,
    parts: _Parts,
    run: Path,
    checkpoint: Checkpoint | None,
    world: World,
    progress: Progress,
    callbacks: tuple[Callback, ...],
) -> Trainer:
    splits, sampler, meta = parts.splits, parts.sampler, parts.meta
    dataset = training_set(config, splits, meta)
    trainer = Trainer(
        stepper_of(config, parts.model, world),
        head=parts.model.box_head,
        schedule=schedule_of(config, parts.iterations),
        open_loader=lambda consumed: train_loader(
            dataset,
            sampler,
            config.workers,
            consumed_batches=consumed,
            max_bad_images=config.max_bad_images,
            timeout=config.loader_timeout,
            pin_memory=world.device.type == "cuda",
        ),
        plan=plan_of(config, parts.iterations, sampler.epoch_length),
        weights=WeightsFolder(
            run / runs.WEIGHTS_FOLDER, meta=meta, statistics=splits.statistics, config=config.model_dump(mode="json")
        ),
        world=world,
        validate=validation_of(config, splits, meta, run, world, progress),
        callbacks=(*loggers_of(config, parts.model, splits, run, checkpoint, world, progress), *callbacks),
        describe_images=splits.describe_images,
        watchdog=watchdog_of(config, run, world),
    )
    if checkpoint is None:
        rng.seed_all(config.seed, world.rank)
    else:
        trainer.resume(checkpoint)
    return trainer


def _rgb(values: Tensor) -> tuple[float, float, float]:
    r, g, b = values.flatten().tolist()
    return r, g, b
