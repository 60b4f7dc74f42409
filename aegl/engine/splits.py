"""The data of a training run: both splits, class statistics, samplers and data sets, as the configuration asks."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aegl.config import Config
from aegl.data.annotated import MASKS_NEEDED
from aegl.data.aspect import aspect_groups
from aegl.data.class_balanced import class_balanced
from aegl.data.dataset import DetectionDataset
from aegl.data.paste import Paste
from aegl.data.preprocess import Preprocess
from aegl.data.samplers import EpochSampler, RepeatFactors, SamplingRule, repeat_factors
from aegl.data.segments import SegmentFolder, open_segments
from aegl.data.source import class_statistics, require_same_classes, resolve_data
from aegl.data.store import NO_MASK
from aegl.data.transforms import TrainTransform
from aegl.engine.batch_size import images_per_step
from aegl.engine.distributed import World
from aegl.errors import ConfigError, DataError
from aegl.longtail.statistics import ClassStatistics
from aegl.metadata import ModelMeta
from aegl.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore

LOGGER = logging.getLogger("aegl")


@dataclass(frozen=True)
class Splits:
    """Training and val split of a data set.

    Args:
        name: of the data set.
        protocol: ``lvis`` or ``coco``.
        train: annotations to learn from.
        val: annotations to evaluate on; the same classes.
        statistics: of ``train``; of the annotations alone, whatever is pasted.
        segments: what is pasted into training images, or None.
    """

    name: str
    protocol: str
    train: AnnotationStore
    val: AnnotationStore
    statistics: ClassStatistics
    segments: SegmentFolder | None = None

    def describe_images(self, rows: list[int]) -> str:
        """Ids and files of training images, for messages."""
        return ", ".join(f"{self.train.image_ids[row]} ({self.train.image_path(row)})" for row in rows)


def open_splits(config: Config, world: World, progress: Progress | None = None) -> Splits:
    """Open both splits and the segments; the main process builds and checks what must be first, the others wait.

    The first process of each other machine comes next: it finds the main one's cache, or builds that of its machine.

    Args:
        config: names the data.
        world: the processes.
        progress: told how far the first reading of a file is.

    Raises:
        ConfigError: if no data set is named.
        DataError: if it cannot be used, or its splits disagree on the classes, or a segment cannot be used.
    """
    if config.data is None:
        raise ConfigError("data: not given; name a data set (data=shapes_lt, data=lvis_v1) or your own file or folder")
    if not world.is_main:
        world.barrier()
    if world.local_rank:
        world.barrier()
    source = resolve_data(
        config.data, data_dir=Path(config.data_dir), shapes=config.shapes, bands=config.bands, progress=progress
    )
    train, val = source.open("train"), source.open("val")
    require_same_classes(train, val)
    statistics = class_statistics(train, source.bands)
    segments = _open_segments(config, train, statistics, world, progress)
    protocol = source.protocol if config.protocol == "auto" else config.protocol
    if world.is_main:
        world.barrier()
    if not world.local_rank:
        world.barrier()
    if world.is_main:
        bands = ", ".join(f"{size} {name}" for name, size in statistics.band_sizes.items())
        LOGGER.info(
            "data=%s: %d training and %d val images, %d classes (%s), %s protocol",
            *(source.name, len(train), len(val), statistics.num_classes, bands, protocol),
        )
    return Splits(source.name, protocol, train, val, statistics, segments)


def _open_segments(
    config: Config, train: AnnotationStore, statistics: ClassStatistics, world: World, progress: Progress | None
) -> SegmentFolder | None:
    if config.paste.folder is None:
        return None
    segments = open_segments(Path(config.paste.folder), train.categories, statistics.image_counts)
    if world.is_main:
        segments.check(config.workers, progress or SilentProgress())
        LOGGER.info("%d segments of %d classes to paste", len(segments), len(segments.labels))
    return segments


def training_sampler(config: Config, splits: Splits, world: World) -> EpochSampler:
    """The order of training images.

    Raises:
        ConfigError: if the batch cannot be divided among processes and accumulated passes.
        DataError: if there is nothing to learn from.
    """
    passes, batch = world.size * config.accumulate, images_per_step(config)
    if batch % passes:
        raise ConfigError(
            f"batch={batch}: must be a multiple of accumulate={config.accumulate} times the number of "
            f"processes, {world.size}"
        )
    return EpochSampler(
        _sampling_rule(config, splits),
        batch // passes,
        seed=config.seed,
        rank=world.rank,
        world_size=world.size,
        groups=aspect_groups(splits.train.image_sizes) if config.aspect_grouping else None,
    )


def _sampling_rule(config: Config, splits: Splits) -> SamplingRule:
    num_images, num_classes = len(splits.train.image_ids), splits.statistics.num_classes
    empty = splits.train.images_without_objects()
    if empty.all():
        raise DataError(f"{splits.train.source}: no image has an object to learn from")
    left_out = empty & (not config.empty_images)
    if config.sampler == "class_balanced":
        return class_balanced(splits.train, num_classes, num_images - int(left_out.sum()))
    if left_out.any():
        LOGGER.info("%d images without objects are left out; empty_images=true trains on them too", left_out.sum())
    if config.sampler == "rfs":
        factors = repeat_factors(splits.train, num_classes, config.rfs_threshold, config.rfs_power)
    else:
        factors = RepeatFactors.uniform(num_images)
    return replace(factors.without(left_out), rounding=config.rfs_rounding)


def training_set(config: Config, splits: Splits, meta: ModelMeta) -> DetectionDataset:
    """Augmented training images with targets.

    Raises:
        DataError: where objects have no masks, and their boxes are not to do instead.
    """
    _require_masks(config, splits.train)
    transform = TrainTransform(tuple(config.train_imgsz), config.flip)
    if config.ignore_unverified and not splits.train.federated:
        LOGGER.info("ignore_unverified=true changes nothing: %s is annotated exhaustively", splits.train.source)
    return DetectionDataset(
        splits.train,
        preprocess_of(meta),
        transform=transform,
        seed=config.seed,
        with_verified=config.ignore_unverified and splits.train.federated,
        paste=_paste(config, splits.segments),
        box_masks=config.box_masks,
    )


def _require_masks(config: Config, train: AnnotationStore) -> None:
    regular = ~np.asarray(train.ann_crowd)
    without = int((np.asarray(train.mask_kinds)[regular] == NO_MASK).sum())
    if without and not config.box_masks:
        raise DataError(f"{train.source}: {without} of {int(regular.sum())} objects have no mask: {MASKS_NEEDED}")
    if without:
        LOGGER.info("%d of %d objects have no mask: their boxes stand for it", without, int(regular.sum()))


def _paste(config: Config, segments: SegmentFolder | None) -> Paste | None:
    keys = config.paste
    if segments is None:
        return None
    return Paste(
        segments,
        probability=keys.probability,
        counts=(keys.min_count, keys.max_count),
        sizes=(keys.min_size, keys.max_size),
        min_visible=keys.min_visible,
        flip=config.flip,
    )


def evaluation_set(store: AnnotationStore, meta: ModelMeta, canvas: tuple[int, int] | None = None) -> DetectionDataset:
    """Images of a split as the model wants them at test time; see :class:`Preprocess` for ``canvas``."""
    return DetectionDataset(store, preprocess_of(meta, canvas))


def preprocess_of(meta: ModelMeta, canvas: tuple[int, int] | None = None) -> Preprocess:
    """The preprocessing a model was trained with, made to fit the only canvas that an exported file takes, if any."""
    return Preprocess(meta.imgsz, meta.max_size, meta.stride, meta.pad_value, canvas)
