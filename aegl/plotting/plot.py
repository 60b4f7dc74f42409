"""`aegl plot`: figures of runs and data sets, as PNG and SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.config import Config, load_config
from aegl.config.hints import did_you_mean
from aegl.errors import ConfigError, RunError
from aegl.plotting.figures import FIGURES, ClassCounts, Inputs, draw
from aegl.plotting.records import UnavailableError, open_records
from aegl.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from aegl.data.source import DataSource

FOLDER = "plots"
"""Where figures go where `output` names no folder: in the run of the first one, or here."""


def plot(
    overrides: Mapping[str, Any], progress: Progress, open_source: Callable[[Config, Progress], DataSource]
) -> dict[str, Any]:
    """Draw the figures that are asked for, or all that can be made.

    Args:
        overrides: `runs`, `data` (several with commas), `figures`, `output`, `class_order`, `measure`.
        progress: told which figures cannot be made, and why, where none were named.
        open_source: opens a data set.

    Returns:
        ``{"output", "figures": {name: [files]}, "left_out": {name: reason}}``.

    Raises:
        ConfigError: for an unknown figure, or where nothing is given to make figures of.
        UnavailableError: if a figure that was named cannot be made.
        RunError: if a file cannot be written.
    """
    config = load_config({key: value for key, value in overrides.items() if key != "data"})
    names = _names(config)
    inputs = Inputs(
        open_records(config.runs or []),
        _data(overrides, progress, open_source),
        order=config.class_order,
        measure=config.measure,
    )
    if not inputs.runs and not inputs.data:
        raise ConfigError("runs, data: neither is given; name the folders of runs, a data set, or both")
    output = _folder(config, inputs)
    drawn: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    for name in names:
        try:
            drawn[name] = _write(name, inputs, output)
        except UnavailableError as error:
            if config.figures:
                raise UnavailableError(f"figures={name}: {error}") from error
            left_out[name] = str(error)
    return {"output": str(output), "figures": drawn, "left_out": left_out}


def _names(config: Config) -> list[str]:
    for name in config.figures or ():
        if name not in FIGURES:
            raise ConfigError(
                f"figures={name}: unknown figure{did_you_mean(name, FIGURES)}; known are {', '.join(FIGURES)}"
            )
    return list(config.figures or FIGURES)


def _folder(config: Config, inputs: Inputs) -> Path:
    if config.output is not None:
        return Path(config.output)
    return inputs.runs[0].folder / FOLDER if inputs.runs else Path(FOLDER)


def _write(name: str, inputs: Inputs, output: Path) -> list[str]:
    from aegl.plots.charts.canvas import write

    files = []
    for stem, figure in draw(name, inputs):
        try:
            output.mkdir(parents=True, exist_ok=True)
            files += [str(path) for path in write(figure, output / stem)]
        except OSError as error:
            raise RunError(f"output={output}: cannot be written ({error.strerror or error})") from error
    return files


def _data(
    overrides: Mapping[str, Any], progress: Progress, open_source: Callable[[Config, Progress], DataSource]
) -> list[ClassCounts]:
    given = overrides.get("data")
    each = given if isinstance(given, list) else str(given).split(",") if given is not None else []
    others = {key: value for key, value in overrides.items() if key not in ("data", "runs", "figures")}
    return [
        _of_categories(Path(name)) or _of_source(load_config({**others, "data": name}), progress, open_source)
        for name in each
    ]


def _of_source(
    config: Config, progress: Progress, open_source: Callable[[Config, Progress], DataSource]
) -> ClassCounts:
    from aegl.data.bands import class_statistics
    from aegl.data.samplers import repeat_factors

    source = open_source(config, progress)
    train = source.open("train")
    statistics = class_statistics(train, source.bands)
    factors = repeat_factors(train, statistics.num_classes, config.rfs_threshold, config.rfs_power)
    return ClassCounts(
        source.name,
        np.asarray(statistics.instance_counts),
        np.asarray(statistics.image_counts),
        factors.classes,
        config.rfs_threshold,
        np.asarray(statistics.class_band),
        statistics.band_names,
    )


def _of_categories(path: Path) -> ClassCounts | None:
    """Of a JSON that holds categories with their counts and no annotations, as published beside LVIS; else None."""
    if path.suffix != ".json" or not path.is_file() or path.stat().st_size > 20_000_000:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # whoever opens it as annotations says what is wrong with it
    if not isinstance(content, dict) or "annotations" in content or not content.get("categories"):
        return None
    counts = [category.get("instance_count") for category in content["categories"]]
    if any(count is None for count in counts):
        raise UnavailableError(
            f"data={path}: not every category has an instance_count, and there are no annotations to count"
        )
    return ClassCounts(path.stem, np.array(counts, dtype=np.int64))
