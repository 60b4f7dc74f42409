"""`batch=auto`: trial steps of the real model on the worst images of the data, on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from aegl.config import Config
from aegl.data.class_descriptions import MASK_SIDE
from aegl.data.preprocess import Preprocess
from aegl.engine import rng
from aegl.engine.assembly import stepper_of
from aegl.engine.batch_size import MOST_PER_PASS, Meter, largest_pass, report_choice
from aegl.engine.distributed import World
from aegl.engine.memory import is_out_of_memory, out_of_memory_told
from aegl.engine.splits import Splits, open_splits
from aegl.engine.stepper import Stepper
from aegl.errors import ConfigError
from aegl.longtail.clustering import grouping_parts
from aegl.models.factory import build_model
from aegl.progress import Progress
from aegl.types import Batch, Targets

_MASK_SIDE = 56


def with_batch_found(config: Config, world: World, progress: Progress) -> Config:
    """The configuration with a number in the place of `batch=auto`; others as they are. Collective.

    The learning rate does not follow by itself: `lr_scaling` says what another batch does to it.

    Every part is trained in the trial, also what `stage.trainable` freezes: a stage before this one has the same batch.

    Args:
        config: the configuration.
        world: the processes; each needs a GPU of its own.
        progress: told by the main process.

    Raises:
        ConfigError: without CUDA: on a CPU nothing refuses memory before the system ends the process.
        RunError: if not even one image fits.
    """
    if config.batch != "auto":
        return config
    if world.device.type not in _METERS:
        raise ConfigError("batch=auto: is measured on a CUDA device, this run is on the CPU; give a number")
    splits = open_splits(config, world, progress if world.is_main else None)
    passes = world.size * config.accumulate
    most = max(1, min(MOST_PER_PASS, len(splits.train) // passes))
    meter = _METERS[world.device.type](config.model_copy(update={"batch": passes}), splits, world)
    if world.is_main:
        progress.message("batch=auto: trying how many images fit")
    with (
        rng.preserved(world.device),
        out_of_memory_told(lambda: "batch=auto, in a trial step", ("a number for batch",)),
    ):
        number = largest_pass(meter, most, world)
    if world.is_main:
        report_choice(number * passes, number, passes, meter)
    return config.model_copy(update={"batch": number * passes})


def cuda_meter(config: Config, splits: Splits, world: World) -> Meter:
    """Peak memory of trial steps on this process's GPU; what other programs hold of it is not counted as there."""
    trial = trial_step(config, splits, World(device=world.device))
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(world.device)[0]

    def peak(images: int) -> int | None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(world.device)
        try:
            trial(images)
            torch.cuda.synchronize(world.device)
        except Exception as error:
            # Losses share counts: with several processes the others wait inside this step for one that has failed.
            if not is_out_of_memory(error) or world.size > 1:
                raise
            return None
        return torch.cuda.max_memory_reserved(world.device)

    return Meter(peak, free + torch.cuda.memory_reserved(world.device))


def trial_step(config: Config, splits: Splits, world: World) -> Callable[[int], None]:
    """A training step on random images, of a model of its own: weights, optimiser and average as in the real run.

    Args:
        config: the configuration.
        splits: the data, of which the images are the worst case.
        world: a process alone, whatever others there are: gradients need not be exchanged.
    """
    model = build_model(config, splits.statistics, backbone_from_config=False).to(world.device).train()
    stepper: Stepper = stepper_of(config, model, world)
    for _, part in grouping_parts(model):
        known = _random_descriptions(splits.statistics.num_classes, config.box.hidden)
        part.describe_classes({name: known[name] for name in part.class_descriptions})
    model.box_head.step_begin(0.5, 0.0)
    canvas, objects = worst_case(config, splits, model.stride)

    def step(images: int) -> None:
        batch = _random_batch(images, canvas, objects, splits.statistics.num_classes)
        stepper.step([batch], lr=0.0)

    step(1)  # makes the optimiser's state, and what kernels keep
    return step


def worst_case(config: Config, splits: Splits, stride: int) -> tuple[tuple[int, int], int]:
    """Height and width of the largest canvas that a batch of these images can need, and the most objects of one.

    A wide and a tall image in one batch need a canvas that is both; grouped by aspect, they still meet in the last
    batches of an epoch. There are at least as many objects as make every
    foreground region that is sampled, which a trained model finds and the one of the trial would not.
    """
    preprocess = Preprocess(config.imgsz, config.max_size, stride, (0, 0, 0))
    sizes = np.unique(splits.train.image_sizes, axis=0)
    resized = [preprocess.target_size(int(height), int(width), max(config.train_imgsz)) for height, width in sizes]
    pasted = config.paste.max_count if config.paste.folder is not None else 0
    fullest = int(np.diff(splits.train.ann_offsets).max()) + pasted
    foreground = int(config.roi.batch_per_image * config.roi.positive_fraction)
    return preprocess.canvas_size(resized), max(fullest, foreground)


def _random_descriptions(num_classes: int, hidden: int) -> dict[str, torch.Tensor]:
    """In place of what :mod:`aegl.engine.class_descriptions` computes: the groups do not matter for the memory."""
    return {
        "classifier": torch.randn(num_classes, hidden),
        "mask": torch.rand(num_classes, MASK_SIDE**2),
        "parent": torch.arange(num_classes) // 10,
    }


def _random_batch(images: int, canvas: tuple[int, int], objects: int, num_classes: int) -> Batch:
    height, width = canvas
    corner = torch.rand(images, objects, 2) * torch.tensor([0.7 * width, 0.7 * height])
    side = 4 + torch.rand(images, objects, 2) * torch.tensor([0.25 * width, 0.25 * height])
    targets = Targets(
        boxes=torch.cat([corner, corner + side], dim=-1),
        labels=torch.randint(0, num_classes, (images, objects)),
        masks=torch.ones(images, objects, _MASK_SIDE, _MASK_SIDE, dtype=torch.uint8),
        num_objects=torch.full((images,), objects),
        focus=torch.randint(0, num_classes, (images,)),
    )
    size = torch.tensor([canvas]).expand(images, 2)
    pixels = torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8)
    return Batch(pixels, size, size, torch.arange(images), targets)


_METERS: dict[str, Callable[[Config, Splits, World], Meter]] = {"cuda": cuda_meter}
"""What makes this process's meter, by kind of device."""
