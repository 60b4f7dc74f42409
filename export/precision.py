"""In which precision a file computes, and what it takes to make and to judge one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aegl.config import Config
from aegl.engine.sources import find_images
from aegl.errors import ConfigError, DataError
from aegl.export.ap_delta import Judge
from aegl.export.calibration import evenly, images_of
from aegl.export.tolerances import PrecisionName

if TYPE_CHECKING:
    from aegl.data.source import DataSource

_SPLIT = "val"


@dataclass(frozen=True)
class Precision:
    """Precision of a file.

    Args:
        name: ``fp32``; ``fp16``: layers in half precision; ``int8``: layers quantised.
        calibration: image files that fix the ranges of int8.
        judge: on which images AP is compared with the float32 model, or None.
        unjudged: why not, where it is None.
    """

    name: PrecisionName = "fp32"
    calibration: tuple[Path, ...] = ()
    judge: Judge | None = None
    unjudged: str = ""


FULL_PRECISION = Precision()
"""float32, as the model is."""


def choose_precision(config: Config, open_source: Callable[[], DataSource]) -> Precision:
    """The precision that `half` or `int8` asks for.

    Args:
        config: of the export.
        open_source: opens the model's data; called only where images are needed.

    Raises:
        ConfigError: for both at once.
        DataError: if int8 has no images to calibrate with.
    """
    if config.half and config.int8:
        raise ConfigError("half=true and int8=true: a file has one precision; give one of them")
    if not (config.half or config.int8):
        return FULL_PRECISION
    judge, reason = _judge(config, open_source)
    if config.half:
        return Precision("fp16", (), judge if config.ap_images else None, reason)
    calibration = _calibration(config, judge, reason)
    return Precision("int8", calibration, judge if config.ap_images else None, reason)


def _judge(config: Config, open_source: Callable[[], DataSource]) -> tuple[Judge | None, str]:
    """Who compares AP, or why nobody can: a file can be made where the data is not."""
    try:
        source = open_source()
        store = source.open(_SPLIT)
    except (ConfigError, DataError) as error:
        return None, str(error)
    protocol = source.protocol if config.protocol == "auto" else config.protocol
    return Judge(store, _SPLIT, protocol, config.ap_images), "" if config.ap_images else "ap_images=0"


def _calibration(config: Config, judge: Judge | None, reason: str) -> tuple[Path, ...]:
    if config.calibration_images is not None:
        paths = find_images(config.calibration_images, key="calibration_images")
        return tuple(paths[row] for row in evenly(len(paths), config.calibration_count))
    if judge is None:
        raise DataError(
            f"int8=true: needs images to fix its ranges with, and the val split cannot be had ({reason}); give a "
            "folder of images like those it will see with calibration_images="
        )
    return tuple(images_of(judge.store, config.calibration_count))
