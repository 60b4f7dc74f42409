"""The parts of a trainer, each made from the configuration."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from aegl.config import Config
from aegl.data.loader import eval_loader
from aegl.engine import runs
from aegl.engine.backend import TorchBackend
from aegl.engine.callbacks import Callback, CsvLogger, ProgressLogger
from aegl.engine.checkpoint import Checkpoint
from aegl.engine.distributed import World
from aegl.engine.ema import ModelEma
from aegl.engine.gradients_csv import GradientsCsv
from aegl.engine.optim import build_optimizer
from aegl.engine.results_csv import ResultsCsv
from aegl.engine.schedule import Schedule
from aegl.engine.scorer import Scorer
from aegl.engine.splits import Splits, evaluation_set
from aegl.engine.stepper import Stepper
from aegl.engine.trainer import Validate
from aegl.engine.validator import validate
from aegl.errors import ConfigError
from aegl.metadata import ModelMeta
from aegl.metrics import PROTOCOLS
from aegl.models.mask_rcnn import MaskRCNN

if TYPE_CHECKING:
    from aegl.progress import Progress

LOGGER = logging.getLogger("aegl")

_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")


def schedule_of(config: Config, iterations: int) -> Schedule:
    """Learning rate by step."""
    if config.warmup_iterations >= iterations:
        LOGGER.warning(
            "warmup_iterations=%d: as long as the run of %d steps, so lr never reaches its peak",
            config.warmup_iterations,
            iterations,
        )
    return Schedule(
        config.lr * config.stage.lr,
        iterations,
        config.lr_schedule,
        config.warmup_iterations,
        config.warmup_factor,
        tuple(config.lr_milestones),
        config.lr_gamma,
    )


def stepper_of(config: Config, model: nn.Module, world: World) -> Stepper:
    """Optimiser, precision and averaging of the model's trainable weights."""
    optimizer = build_optimizer(
        model,
        name=config.optimizer,
        lr=config.lr * config.stage.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        norm_decay=config.norm_decay,
    )
    ema = ModelEma(model, config.ema_decay) if config.ema else None
    return Stepper(model, optimizer, world=world, amp=config.amp, clip_grad=config.clip_grad, ema=ema)


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
    iterations = max(1, math.ceil(epochs * epoch_images / config.batch))
    LOGGER.info("%g epochs of %.0f images in batches of %d: %d steps", epochs, epoch_images, config.batch, iterations)
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


def loggers_of(
    model: MaskRCNN, splits: Splits, run: Path, checkpoint: Checkpoint | None, world: World, progress: Progress
) -> tuple[Callback, ...]:
    """What writes and shows how training goes; on the main process only."""
    if not world.is_main:
        return ()
    statistics = splits.statistics
    results = ResultsCsv(run / runs.RESULTS_FILE, keep_until=checkpoint.iteration if checkpoint else 0)
    labels = {"protocol": splits.protocol, "split": "val", "ground_truth_hash": splits.val.content_hash}
    figures = [*_FIGURES, *(f"AP{name}" for name in statistics.band_names)]
    loggers = [CsvLogger(results, labels=labels, figures=figures), ProgressLogger(progress)]
    account = model.box_head.gradients
    if account is None:
        return tuple(loggers)
    names = splits.train.categories.names
    return *loggers, GradientsCsv(run / runs.GRADIENTS_FILE, account, names=names, statistics=statistics)
