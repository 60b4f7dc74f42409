"""A training run in miniature, run inside the tests and in processes that they start and kill."""

import itertools
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aegl.engine.callbacks import Callback
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.distributed import World, join_world
from aegl.engine.ema import ModelEma
from aegl.engine.optim import build_optimizer
from aegl.engine.plan import TrainPlan
from aegl.engine.rng import seed_all
from aegl.engine.schedule import Schedule
from aegl.engine.stepper import Stepper
from aegl.engine.trainer import Trainer
from aegl.engine.weights import WeightsFolder
from aegl.longtail.base import ClassificationLoss
from aegl.longtail.statistics import ClassStatistics
from aegl.metadata import ModelMeta
from aegl.types import Batch, Targets

STATISTICS = ClassStatistics(np.array([1, 5, 9]), np.array([1, 4, 7]), 12, np.array([0, 1, 2]))
META = ModelMeta(
    names=("ant", "bee", "cat"),
    category_ids=(3, 5, 8),
    band_names=("r", "c", "f"),
    class_band=(0, 1, 2),
    model="toy",
    method="softmax_ce",
    data="toy",
    protocol="coco",
    imgsz=8,
    max_size=16,
    stride=8,
    pixel_mean=(0.0, 0.0, 0.0),
    pixel_std=(1.0, 1.0, 1.0),
    conf=0.05,
    iou=0.5,
    max_det=10,
    mask_size=4,
)


class ToyLoss(ClassificationLoss):
    """Softmax with a state of its own: how many rows it has seen, which also scales the loss."""

    num_logits = 4

    def __init__(self) -> None:
        super().__init__(STATISTICS)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, logits: Tensor, labels: Tensor, **_: Any) -> dict[str, Tensor]:
        self.seen += len(labels)
        value = nn.functional.cross_entropy(logits, labels) * (1 + self.progress) / (1 + 0.01 * self.seen)
        self.diagnostics = {"seen": self.seen.detach()}
        return {"loss_cls": value}


class ToyModel(nn.Module):
    """Dropout draws from the global generator; batch norm has statistics; one layer is frozen."""

    def __init__(self, loss: ToyLoss) -> None:
        super().__init__()
        self.frozen = nn.Linear(12, 12).requires_grad_(False)
        self.body = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4))
        self.loss = loss

    def forward(self, images: Tensor, targets: Targets | None = None) -> Any:
        logits = self.body(self.frozen(images.flatten(1).float() / 255))
        if targets is None:
            return logits
        return {**self.loss(logits, targets.labels[:, 0]), "loss_size": 0.1 * logits.square().mean()}


def batches(consumed: int, *, images: int, world: World, bad_step: int = -1) -> Iterator[Batch]:
    """Endless batches that depend on their number and rank only."""
    for number in itertools.count(consumed):
        generator = torch.Generator().manual_seed(1000 * number + world.rank)
        pixels = torch.randint(0, 256, (images, 3, 2, 2), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 4, (images, 1), generator=generator)
        targets = Targets(torch.zeros(images, 1, 4), labels, torch.zeros(images, 1, 4, 4), torch.ones(images))
        index = torch.arange(images) + images * (number % 3)
        batch = Batch(pixels, torch.full((images, 2), 2), torch.full((images, 2), 2), index, targets)
        if number == bad_step:
            batch.images = batch.images.float().fill_(float("nan"))
        yield batch


def build(
    folder: Path,
    *,
    world: World | None = None,
    iterations: int = 12,
    ema: bool = True,
    bad_step: int = -1,
    callbacks: Any = (),
    validate: Any = None,
    accumulate: int = 2,
    amp: Any = "none",
    val_every: int = 0,
    checkpoint_every: int = 4,
    log_every: int = 3,
    checkpoint_seconds: float = math.inf,
    max_skipped: int = 0,
    loss_limit: float = math.inf,
    open_loader: Any = None,
    watchdog: Any = None,
) -> Trainer:
    """A trainer over the toy model, from the same start every time."""
    world = world or World()
    seed_all(0)
    model = ToyModel(ToyLoss())
    options: dict[str, Any] = {"nesterov": False, "weight_decay": 0.01, "norm_decay": False}
    optimizer = build_optimizer(model, name="adamw", lr=0.02, momentum=0.9, **options)
    average = ModelEma(model, 0.9) if ema else None
    seed_all(0, world.rank)
    return Trainer(
        Stepper(
            model,
            optimizer,
            world=world,
            amp=amp,
            clip_grad=1.0,
            ema=average,
            loss_limit=loss_limit,
            skip=max_skipped > 0,
        ),
        head=model.loss,
        schedule=Schedule(0.02, iterations, "cosine", warmup_iterations=3),
        open_loader=open_loader or (lambda consumed: batches(consumed, images=4, world=world, bad_step=bad_step)),
        plan=TrainPlan(
            iterations,
            8,
            accumulate,
            log_every=log_every,
            checkpoint_every=checkpoint_every,
            checkpoint_seconds=checkpoint_seconds,
            max_skipped=max_skipped,
            loss_limit=loss_limit,
            val_every=val_every,
            epoch_images=24,
        ),
        weights=WeightsFolder(folder, meta=META, statistics=STATISTICS, config={"lr": 0.02}),
        world=world,
        callbacks=callbacks,
        validate=validate,
        describe_images=lambda rows: ", ".join(f"image {row}" for row in rows),
        watchdog=watchdog,
    )


class KillAt(Callback):
    """Sends this process a signal after a step, once a file is there that the run writes."""

    def __init__(self, iteration: int, number: signal.Signals, *, once: Path = Path()) -> None:
        self.iteration, self.number, self.once = iteration, number, once

    def on_step_end(self, iteration: int) -> None:
        if iteration == self.iteration:
            while not self.once.exists():
                time.sleep(0.001)
            os.kill(os.getpid(), self.number)


def run_process(
    folder: Path, kill_at: int, rank: int = 0, world_size: int = 1, port: int = 0, options: dict[str, Any] | None = None
) -> None:
    """Body of a process: train in ``folder``, from its ``last.pt`` if there is one; SIGKILL after step ``kill_at``."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with join_world("cpu") as world:
        trainer = build(
            folder, world=world, callbacks=[KillAt(kill_at, signal.SIGKILL, once=folder / "last.pt")], **(options or {})
        )
        last = folder / "last.pt"
        if last.exists():
            trainer.resume(load_checkpoint(last))
        trainer.run()
        torch.save(trainer._stepper.model.state_dict(), folder / f"rank{world.rank}.pt")


def same(left: Any, right: Any) -> bool:
    """Equal in every bit, through nested containers."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def state(folder: Path) -> tuple[Any, Any]:
    checkpoint = load_checkpoint(folder / "last.pt")
    return checkpoint.model, vars(checkpoint.training)


def fork(body: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that need not import torch again."""
    process = multiprocessing.get_context("fork").Process(target=body, args=arguments)
    process.start()
    return process


def exit_code(process: BaseProcess) -> int | None:
    process.join(60)
    return process.exitcode
