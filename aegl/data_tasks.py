"""One function per `aegl data <verb>`, like those of :mod:`aegl.tasks`: overrides and progress in, a dictionary out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aegl.config import Config, load_config
from aegl.data.source import DataSource, resolve_data
from aegl.errors import ConfigError
from aegl.progress import Progress
from aegl.trained import Overrides


def data_check(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Look for everything that is wrong with a data set's files; with `sampler=`, show what that will do in training.

    Returns:
        What :func:`aegl.data.check.check_source` does, and under ``sampling`` the
        :func:`aegl.data.sampling_plan.sampling_plan` if a sampler was named and the training split can be read.
    """
    from aegl.data.check import NOT_CHECKED, check_source

    config = load_config(overrides)
    source = open_source(config, progress)
    report = check_source(source, progress=progress)
    train = report["splits"].get("train")
    if "sampler" in overrides and train is not None and NOT_CHECKED not in train["by_kind"]:
        report["sampling"] = {"sampler": config.sampler, **_sampling_plan(config, source)}
    return report


def data_stats(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Counts of a data set, by split and frequency band."""
    from aegl.data.summary import summarize_source

    return summarize_source(open_source(load_config(overrides), progress))


def data_advise(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Propose what to train a data set with, and why; see :func:`aegl.data.advice.advise`."""
    import torch

    from aegl.data.advice import advise

    config = load_config(overrides)
    return advise(open_source(config, progress), _data(config), gpu=torch.cuda.is_available())


def data_download(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Fetch a shipped data set from its official addresses."""
    from aegl.data.download import download
    from aegl.data.source import describe_shipped

    config = load_config(overrides)
    if config.data is None:
        raise ConfigError("data: not given; name a shipped data set, e.g. data=lvis_v1")
    files = download(config.data, describe_shipped(config.data), Path(config.data_dir), progress)
    return {"data": config.data, "files": [str(file) for file in files]}


def data_convert(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Write a data set in the format `to=`; see :func:`aegl.data.convert.convert`."""
    from aegl.data.convert import convert

    config = load_config(overrides)
    if config.to is None:
        raise ConfigError("to: not given; name the format to write: to=coco, to=lvis, to=yolo or to=voc")
    return convert(
        _data(config),
        config.to,
        _output(config),
        read_as=config.read_as,
        source=lambda: open_source(config, progress),
        progress=progress,
    )


def data_split(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Split the training file of a data set into two; see :func:`aegl.data.split.split`."""
    from aegl.data.split import split

    config = load_config(overrides)
    source = open_source(config, progress)
    store = source.open("train" if "train" in source.files else "val")
    output = _output(config)
    return split(store, output, fraction=config.fraction, seed=config.seed, data=source.name, progress=progress)


def data_coco_lt(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Make the training file of COCO-LT from COCO's; see :func:`aegl.data.coco_lt.write_coco_lt`."""
    from aegl.data.coco_lt import write_coco_lt

    config = load_config(overrides)
    store = open_source(config, progress).open("train")
    output = Path(config.data_dir) / "coco_lt" if config.output is None else Path(config.output)
    images = None if config.images is None else Path(config.images)
    return write_coco_lt(store, output, images=images, seed=config.seed, progress=progress)


def data_segments(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Cut the objects of the training split out of their images, to paste; see :func:`aegl.data.cut_out.cut_out`."""
    from aegl.data.cut_out import cut_out

    config = load_config(overrides)
    source = open_source(config, progress)
    output = _output(config)
    return cut_out(source.open("train"), output, per_class=config.per_class, data=source.name, progress=progress)


def open_source(config: Config, progress: Progress | None = None) -> DataSource:
    """The data set that ``config.data`` names. Raises :class:`ConfigError` when it names none."""
    return resolve_data(
        _data(config),
        data_dir=Path(config.data_dir),
        shapes=config.shapes,
        bands=config.bands,
        progress=progress,
    )


def _data(config: Config) -> str:
    if config.data is None:
        raise ConfigError("data: not given; name a data set (data=shapes_lt, data=lvis_v1) or your own file or folder")
    return config.data


def _output(config: Config) -> Path:
    if config.output is None:
        raise ConfigError("output: not given; name the folder to write")
    return Path(config.output)


def _sampling_plan(config: Config, source: DataSource) -> dict[str, Any]:
    from aegl.data.bands import class_statistics
    from aegl.data.sampling_plan import sampling_plan
    from aegl.engine.distributed import World
    from aegl.engine.splits import Splits, training_sampler

    train = source.open("train")
    statistics = class_statistics(train, source.bands)
    sampler = training_sampler(config, Splits(source.name, source.protocol, train, train, statistics), World())
    return sampling_plan(train, sampler, statistics.class_band, statistics.band_names)
