"""The size of a batch: the number that `batch` gives, or for `batch=auto` the largest that fits into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from aegl.config import Config
from aegl.engine.distributed import World
from aegl.errors import ConfigError, RunError

LOGGER = logging.getLogger("aegl")

MOST_PER_PASS = 64
"""Images of one pass at most, whatever fits: beyond, large tensors outgrow what GPU kernels can index."""

_USED = 0.9
"""Share of the memory to fill: the rest is for fragmentation, and for what no trial step shows (NCCL, evaluation)."""

_SHRINK = 0.9

Measure = Callable[[int], int | None]
"""Images of a training step to the most bytes that it held at once, or None if it does not fit."""


@dataclass(frozen=True)
class Meter:
    """Measures memory of trial steps.

    Args:
        peak: bytes of a step of so many images.
        capacity: bytes that there are.
    """

    peak: Measure
    capacity: int


def images_per_step(config: Config) -> int:
    """`batch` as a number. Raises :class:`ConfigError` where `auto` has not been replaced by one, as training does."""
    if config.batch == "auto":
        raise ConfigError("batch=auto: is for training alone; give the number of images of a step")
    return config.batch


def largest_pass(meter: Meter, most: int, world: World) -> int:
    """The most images that a forward and backward pass of every process can take. Collective.

    Memory is a straight line over the number of images: two steps give it, a third one at its end proves it.

    Args:
        meter: of this process.
        most: images of a pass at most.
        world: the processes; they agree on the smallest of their numbers.

    Raises:
        RunError: if not even one image fits.
    """
    one = meter.peak(1)
    if one is None or one > meter.capacity:
        raise RunError(
            f"batch=auto: not even one image fits into {_gib(meter.capacity)}; use amp=bf16, "
            "checkpoint_activations=true or smaller images (train_imgsz, max_size)"
        )
    two = meter.peak(2) if most > 1 else None
    number = 1
    if two is not None:
        each = max(two - one, 1)
        number = max(1, min(most, 1 + int((_USED * meter.capacity - one) // each)))
    number = min(int(count) for count in world.gather(torch.tensor(number)))
    while number > 1 and not _fits(meter, number, world):
        number = max(1, int(number * _SHRINK))
    return number


def report_choice(batch: int, per_pass: int, passes: int, meter: Meter) -> None:
    """Log what was found."""
    LOGGER.info(
        "batch=auto: batch=%d (%d image%s in a pass of a process, %d such passes in a step; %s of memory)",
        *(batch, per_pass, "s" if per_pass > 1 else "", passes, _gib(meter.capacity)),
    )


def _fits(meter: Meter, number: int, world: World) -> bool:
    """Whether a step of so many images fits on every process. Collective."""
    peak = meter.peak(number)
    fits = peak is not None and peak <= meter.capacity
    return all(bool(each) for each in world.gather(torch.tensor(int(fits))))


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
