"""From the configuration to a training run: the only place of the engine that knows how the parts fit together."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from aegl.config import Config, complete_parts, to_yaml
from aegl.data.loader import eval_loader, train_loader
from aegl.data.samplers import EpochSampler
from aegl.engine import rng, runs
from aegl.engine.backend import TorchBackend
from aegl.engine.callbacks import Callback, CsvLogger, ProgressLogger
from aegl.engine.checkpoint import Checkpoint, load_checkpoint
from aegl.engine.distributed import World, join_world
from aegl.engine.ema import ModelEma
from aegl.engine.optim import build_optimizer
from aegl.engine.restore import start_from
from aegl.engine.results_csv import ResultsCsv
from aegl.engine.resume import open_run, refuse_finished, run_to_resume
from aegl.engine.schedule import Schedule
from aegl.engine.scorer import Scorer
from aegl.engine.splits import Splits, evaluation_set, open_splits, training_sampler, training_set
from aegl.engine.stepper import Stepper
from aegl.engine.trainer import Trainer, TrainPlan, Validate
from aegl.engine.validator import validate
from aegl.engine.weights import WeightsFolder
from aegl.errors import ConfigError
from aegl.metadata import ModelMeta
from aegl.metrics import PROTOCOLS
from aegl.models.factory import AP_CONF, build_model
from aegl.models.mask_rcnn import MaskRCNN

if TYPE_CHECKING:
    from aegl.progress import Progress

LOGGER = logging.getLogger("aegl")

_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")


@dataclass(frozen=True)
class _Parts:
    splits: Splits
    sampler: EpochSampler
    iterations: int
    model: MaskRCNN
    meta: ModelMeta


def train(config: Config, progress: Progress, callbacks: tuple[Callback, ...] = ()) -> dict[str, Any]:
    """Train a model; under torchrun, this process's part of it.

    Args:
        config: the configuration; ``data`` is given. With ``resume`` only its ``device`` and ``workers`` count, besides
            what names the run (see :mod:`aegl.engine.resume`): the rest is read from the run's folder.
        progress: shown by the main process.
        callbacks: told of what happens, after those that write ``results.csv`` and show progress.

    Returns:
        ``run``, ``last``, ``best`` (paths), ``iterations``, ``seconds``, ``metrics`` (summary of the last evaluation;
        empty on all processes but the main one) and ``fitness`` of ``best.pt``.

    Raises:
        AeglError: its kind says whether the configuration, the data, a checkpoint or the run itself is at fault.
    """
    with join_world(config.device) as world:
        run, checkpoint = None, None
        if config.resume:
            run = run_to_resume(config)
            config, checkpoint = open_run(run, config)
        else:
            runs.check_free(config.project, config.name, exist_ok=config.exist_ok)
        parts = _prepare(config, checkpoint, world, progress)
        if run and checkpoint:
            refuse_finished(run, checkpoint, parts.iterations)
        # Only now is the request known to be sound: a refused one leaves no empty run behind.
        run = run or _new_run(config, world)
        result = _trainer(config, parts, run, checkpoint, world, progress, callbacks).run()
    weights = run / runs.WEIGHTS_FOLDER
    return {
        "run": str(run),
        "last": str(weights / "last.pt"),
        "best": str(weights / "best.pt"),
        "iterations": result.iterations,
        "seconds": result.seconds,
        "metrics": dict(result.metrics),
        "fitness": result.best,
    }


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
        runs.write_text(created / runs.ARGS_FILE, to_yaml(complete_parts(config)))
        folder = str(created)
    return Path(world.broadcast_text(folder))


def _prepare(config: Config, checkpoint: Checkpoint | None, world: World, progress: Progress) -> _Parts:
    """Data, model and length of the run; where a wrong request is found out."""
    splits = open_splits(config, world, progress if world.is_main else None)
    sampler = training_sampler(config, splits, world)
    iterations = _iterations(config, sampler.epoch_length)
    rng.seed_all(config.seed)  # the same start on every process, and the same classifier for every run of a seed
    starts_elsewhere = checkpoint is not None or config.weights is not None
    model = build_model(config, splits.statistics, backbone_from_config=not starts_elsewhere)
    meta = model_meta(config, splits, model)
    if checkpoint is None and config.weights is not None:
        kind = config.box.classifier
        start_from(model, meta, load_checkpoint(config.weights), classifier=kind, reset=config.reset_classifier)
    return _Parts(splits, sampler, iterations, model.to(world.device), meta)


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
        _stepper(config, parts.model, world),
        head=parts.model.box_head,
        schedule=_schedule(config, parts.iterations),
        open_loader=lambda consumed: train_loader(dataset, sampler, config.workers, consumed_batches=consumed),
        plan=TrainPlan(
            iterations=parts.iterations,
            batch=config.batch,
            accumulate=config.accumulate,
            epoch_images=sampler.epoch_length,
            log_every=config.log_every,
            checkpoint_every=config.checkpoint_every,
            val_every=config.val_every,
        ),
        weights=WeightsFolder(
            run / runs.WEIGHTS_FOLDER, meta=meta, statistics=splits.statistics, config=config.model_dump(mode="json")
        ),
        world=world,
        validate=_validation(config, splits, meta, run, world, progress),
        callbacks=(*_loggers(splits, run, checkpoint, world, progress), *callbacks),
        describe_images=splits.describe_images,
    )
    if checkpoint is None:
        rng.seed_all(config.seed, world.rank)
    else:
        trainer.resume(checkpoint)
    return trainer


def _schedule(config: Config, iterations: int) -> Schedule:
    if config.warmup_iterations >= iterations:
        LOGGER.warning(
            "warmup_iterations=%d: as long as the run of %d steps, so lr never reaches its peak",
            config.warmup_iterations,
            iterations,
        )
    return Schedule(
        config.lr,
        iterations,
        config.lr_schedule,
        config.warmup_iterations,
        config.warmup_factor,
        tuple(config.lr_milestones),
        config.lr_gamma,
    )


def _stepper(config: Config, model: nn.Module, world: World) -> Stepper:
    optimizer = build_optimizer(
        model,
        name=config.optimizer,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        norm_decay=config.norm_decay,
    )
    ema = ModelEma(model, config.ema_decay) if config.ema else None
    return Stepper(model, optimizer, world=world, amp=config.amp, clip_grad=config.clip_grad, ema=ema)


def _iterations(config: Config, epoch_images: float) -> int:
    if config.iterations is not None:
        return config.iterations
    if config.epochs is None:
        raise ConfigError("iterations, epochs: neither is given; say how long to train, e.g. epochs=24")
    iterations = max(1, math.ceil(config.epochs * epoch_images / config.batch))
    LOGGER.info(
        "%g epochs of %.0f images in batches of %d: %d steps", config.epochs, epoch_images, config.batch, iterations
    )
    return iterations


def _validation(
    config: Config, splits: Splits, meta: ModelMeta, run: Path, world: World, progress: Progress
) -> Validate:
    """Evaluation of the model in training; predictions are not kept, they would fill the disk."""
    scorer = Scorer(
        splits.val,
        protocol=splits.protocol,
        split="val",
        class_band=splits.statistics.class_band,
        band_names=splits.statistics.band_names,
        max_det=PROTOCOLS[splits.protocol].limit_of_model(config.max_det),
        statistics=splits.statistics,
    )
    dataset = evaluation_set(splits.val, meta)

    def evaluate_model(model: nn.Module) -> dict[str, Any]:
        batches = eval_loader(dataset, 1, config.workers, rank=world.rank, world_size=world.size)
        return validate(
            TorchBackend(model, meta, world.device),
            batches,
            splits.val,
            scorer,
            conf=meta.conf,
            max_det=meta.max_det,
            folder=run,
            progress=progress,
            world=world,
            save_predictions=False,
        )

    return evaluate_model


def _loggers(
    splits: Splits, run: Path, checkpoint: Checkpoint | None, world: World, progress: Progress
) -> tuple[Callback, ...]:
    if not world.is_main:
        return ()
    results = ResultsCsv(run / runs.RESULTS_FILE, keep_until=checkpoint.iteration if checkpoint else 0)
    labels = {"protocol": splits.protocol, "split": "val", "ground_truth_hash": splits.val.content_hash}
    bands = [f"AP{name}" for name in splits.statistics.band_names]
    return CsvLogger(results, labels=labels, figures=[*_FIGURES, *bands]), ProgressLogger(progress)


def _rgb(values: Tensor) -> tuple[float, float, float]:
    r, g, b = values.flatten().tolist()
    return r, g, b
