"""The parts of a trainer, each made from the configuration."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from aegl.config import Config, complete_parts, flatten
from aegl.data.loader import eval_loader
from aegl.engine import runs
from aegl.engine.backend import TorchBackend
from aegl.engine.batch_size import images_per_step
from aegl.engine.callbacks import Callback, CsvLogger, ProgressLogger
from aegl.engine.checkpoint import Checkpoint
from aegl.engine.distributed import World
from aegl.engine.early_stopping import EarlyStopping
from aegl.engine.ema import ModelEma
from aegl.engine.fitness import fitness
from aegl.engine.gradients_csv import GradientsCsv
from aegl.engine.loggers.factory import make_loggers, require_packages
from aegl.engine.optim import build_optimizer
from aegl.engine.plan import TrainPlan
from aegl.engine.results_csv import ResultsCsv, evaluations
from aegl.engine.schedule import Schedule
from aegl.engine.scorer import Scorer
from aegl.engine.speed import compile_parts
from aegl.engine.splits import Splits, evaluation_set
from aegl.engine.stepper import Stepper
from aegl.engine.trainer import Validate
from aegl.engine.user_callbacks import callback_class, make_callbacks
from aegl.engine.validator import validate
from aegl.engine.watchdog import Watchdog
from aegl.errors import ConfigError
from aegl.metadata import ModelMeta
from aegl.metrics import PROTOCOLS
from aegl.models.mask_rcnn import MaskRCNN

if TYPE_CHECKING:
    from aegl.progress import Progress

LOGGER = logging.getLogger("aegl")

_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")


def check_norm(config: Config, world: World) -> None:
    """Raise :class:`ConfigError` where batch norm cannot have the statistics of all processes."""
    if config.backbone.norm == "sync" and world.size > 1 and world.device.type != "cuda":
        raise ConfigError(
            "backbone.norm=sync: PyTorch has it on CUDA devices only, the processes run on the CPU; give frozen, eval "
            "or batch"
        )


def peak_lr(config: Config) -> float:
    """Learning rate after the warm-up."""
    scale = images_per_step(config) / config.lr_batch if config.lr_scaling == "linear" else 1.0
    return config.lr * config.stage.lr * scale


def _tell_of_batch(config: Config) -> None:
    """A learning rate that is made for one batch and used with another is never changed in silence, nor kept so."""
    batch = images_per_step(config)
    if batch == config.lr_batch:
        return
    linear = config.lr * batch / config.lr_batch
    if config.lr_scaling == "linear":
        LOGGER.info("batch=%d: lr_scaling=linear makes lr %.4g out of %g", batch, linear, config.lr)
    else:
        LOGGER.info(
            "batch=%d: lr=%g is for %d images (lr_batch) and stays as it is; lr_scaling=linear would make it %.4g",
            *(batch, config.lr, config.lr_batch, linear),
        )


def schedule_of(config: Config, iterations: int) -> Schedule:
    """Learning rate by step."""
    _tell_of_batch(config)
    if config.warmup_iterations >= iterations:
        LOGGER.warning(
            "warmup_iterations=%d: as long as the run of %d steps, so lr never reaches its peak",
            config.warmup_iterations,
            iterations,
        )
    return Schedule(
        peak_lr(config),
        iterations,
        config.lr_schedule,
        config.warmup_iterations,
        config.warmup_factor,
        tuple(config.lr_milestones),
        config.lr_gamma,
    )


def stepper_of(config: Config, model: MaskRCNN, world: World) -> Stepper:
    """Optimiser, precision and averaging of the model's trainable weights."""
    optimizer = build_optimizer(
        model,
        name=config.optimizer,
        lr=peak_lr(config),
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        norm_decay=config.norm_decay,
    )
    ema = ModelEma(model, config.ema_decay) if config.ema else None
    if config.checkpoint_activations:
        model.backbone.checkpoint_activations()
    if config.compile:
        compile_parts(model, world.device)
    return Stepper(
        model,
        optimizer,
        world=world,
        amp=config.amp,
        clip_grad=config.clip_grad,
        ema=ema,
        loss_limit=config.loss_limit or math.inf,
        skip=config.nonfinite == "skip",
    )


def plan_of(config: Config, iterations: int, epoch_images: float) -> TrainPlan:
    """Length and rhythm of the run."""
    return TrainPlan(
        iterations=iterations,
        batch=images_per_step(config),
        accumulate=config.accumulate,
        epoch_images=epoch_images,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        checkpoint_seconds=60 * config.checkpoint_minutes or math.inf,
        val_every=config.val_every,
        max_skipped=config.max_skipped if config.nonfinite == "skip" else 0,
        loss_limit=config.loss_limit or math.inf,
    )


def watchdog_of(config: Config, run: Path, world: World) -> Watchdog:
    """Ends this process if it hangs; its report lies in the run's folder."""
    name = "stuck.txt" if world.size == 1 else f"stuck.{world.rank}.txt"
    return Watchdog(60 * config.watchdog_minutes or math.inf, run / name)


def iterations_of(config: Config, epoch_images: float) -> int:
    """Steps of the run; ``epoch_images`` is the length of the sampler's epoch.

    Raises:
        ConfigError: if no length is given.
    """
    length = config.stage.length
    if config.iterations is not None:
        return max(1, round(config.iterations * length))
    if config.epochs is None:
        raise ConfigError("iterations, epochs: neither is given; say how long to train, e.g. epochs=24")
    epochs = config.epochs * length
    batch = images_per_step(config)
    iterations = max(1, math.ceil(epochs * epoch_images / batch))
    LOGGER.info("%g epochs of %.0f images in batches of %d: %d steps", epochs, epoch_images, batch, iterations)
    return iterations


def validation_of(
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


def check_callbacks(config: Config) -> None:
    """Refuse loggers whose package is missing and callbacks that cannot be found, before anything is trained."""
    require_packages(config.loggers)
    for text in config.callbacks:
        callback_class(text)


def loggers_of(
    config: Config,
    model: MaskRCNN,
    splits: Splits,
    run: Path,
    checkpoint: Checkpoint | None,
    world: World,
    progress: Progress,
) -> tuple[Callback, ...]:
    """What writes and shows how training goes, ends it early, and what the user adds; on the main process only."""
    if not world.is_main:
        return ()
    statistics = splits.statistics
    logged_until = checkpoint.iteration if checkpoint else 0
    evaluated_until = checkpoint.training.validated if checkpoint and checkpoint.training else 0
    results = ResultsCsv(run / runs.RESULTS_FILE, keep_until=logged_until, evaluated_until=evaluated_until)
    labels = {"protocol": splits.protocol, "split": "val", "ground_truth_hash": splits.val.content_hash}
    figures = [*_FIGURES, *(f"AP{name}" for name in statistics.band_names)]
    earlier = evaluations(results.path)
    loggers: list[Callback] = [
        CsvLogger(results, labels=labels, figures=figures),
        ProgressLogger(progress, before=earlier[-1][1] if earlier else {}),
    ]
    account = model.box_head.gradients
    if account is not None:
        names = splits.train.categories.names
        loggers.append(GradientsCsv(run / runs.GRADIENTS_FILE, account, names=names, statistics=statistics))
    loggers += make_loggers(
        config.loggers,
        run,
        flatten(complete_parts(config)),
        logged_until=logged_until if checkpoint else None,
        evaluated_until=evaluated_until,
    )
    if config.patience:
        loggers.append(EarlyStopping(config.patience, earlier=[fitness(summary) for _, summary in earlier]))
    return *loggers, *make_callbacks(config.callbacks)
