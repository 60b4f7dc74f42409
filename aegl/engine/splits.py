"""The data of a training run: both splits, class statistics, samplers and data sets, as the configuration asks."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aegl.config import Config
from aegl.data.dataset import DetectionDataset
from aegl.data.preprocess import Preprocess
from aegl.data.samplers import EpochSampler, RepeatFactors, repeat_factors
from aegl.data.source import class_statistics, require_same_classes, resolve_data
from aegl.data.transforms import TrainTransform
from aegl.engine.distributed import World
from aegl.errors import ConfigError, DataError
from aegl.longtail.statistics import ClassStatistics
from aegl.metadata import ModelMeta

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.progress import Progress

LOGGER = logging.getLogger("aegl")


@dataclass(frozen=True)
class Splits:
    """Training and val split of a data set.

    Args:
        name: of the data set.
        protocol: ``lvis`` or ``coco``.
        train: annotations to learn from.
        val: annotations to evaluate on; the same classes.
        statistics: of ``train``.
    """

    name: str
    protocol: str
    train: AnnotationStore
    val: AnnotationStore
    statistics: ClassStatistics

    def describe_images(self, rows: list[int]) -> str:
        """Ids and files of training images, for messages."""
        return ", ".join(f"{self.train.image_ids[row]} ({self.train.image_path(row)})" for row in rows)


def open_splits(config: Config, world: World, progress: Progress | None = None) -> Splits:
    """Open both splits; what must be built first is built by the main process while the others wait.

    Args:
        config: names the data.
        world: the processes.
        progress: told how far the first reading of a file is.

    Raises:
        ConfigError: if no data set is named.
        DataError: if it cannot be used, or its splits disagree on the classes.
    """
    if config.data is None:
        raise ConfigError("data: not given; name a data set (data=shapes_lt, data=lvis_v1) or your own file or folder")
    if not world.is_main:
        world.barrier()
    source = resolve_data(
        config.data, data_dir=Path(config.data_dir), shapes=config.shapes, bands=config.bands, progress=progress
    )
    train, val = source.open("train"), source.open("val")
    if world.is_main:
        world.barrier()
    require_same_classes(train, val)
    protocol = source.protocol if config.protocol == "auto" else config.protocol
    return Splits(source.name, protocol, train, val, class_statistics(train, source.bands))


def training_sampler(config: Config, splits: Splits, world: World) -> EpochSampler:
    """The order of training images.

    Raises:
        ConfigError: if the batch cannot be divided among processes and accumulated passes.
        DataError: if there is nothing to learn from.
    """
    passes = world.size * config.accumulate
    if config.batch % passes:
        raise ConfigError(
            f"batch={config.batch}: must be a multiple of accumulate={config.accumulate} times the number of "
            f"processes, {world.size}"
        )
    if config.sampler == "rfs":
        count = splits.statistics.num_classes
        factors = repeat_factors(splits.train, count, config.rfs_threshold, config.rfs_power)
    else:
        factors = RepeatFactors.uniform(len(splits.train.image_ids))
    empty = splits.train.images_without_objects()
    if empty.all():
        raise DataError(f"{splits.train.source}: no image has an object to learn from")
    if not config.empty_images and empty.any():
        LOGGER.info("%d images without objects are left out; empty_images=true trains on them too", empty.sum())
        factors = factors.without(empty)
    return EpochSampler(
        factors,
        config.batch // passes,
        seed=config.seed,
        rank=world.rank,
        world_size=world.size,
        rounding=config.rfs_rounding,
    )


def training_set(config: Config, splits: Splits, meta: ModelMeta) -> DetectionDataset:
    """Augmented training images with targets."""
    transform = TrainTransform(tuple(config.train_imgsz), config.flip)
    if config.ignore_unverified and not splits.train.federated:
        LOGGER.info("ignore_unverified=true changes nothing: %s is annotated exhaustively", splits.train.source)
    return DetectionDataset(
        splits.train,
        preprocess_of(meta),
        transform=transform,
        seed=config.seed,
        with_verified=config.ignore_unverified and splits.train.federated,
    )


def evaluation_set(store: AnnotationStore, meta: ModelMeta) -> DetectionDataset:
    """Images of a split as the model wants them at test time."""
    return DetectionDataset(store, preprocess_of(meta))


def preprocess_of(meta: ModelMeta) -> Preprocess:
    """The preprocessing a model was trained with."""
    return Preprocess(meta.imgsz, meta.max_size, meta.stride, meta.pad_value)
