"""One function per verb: configuration in, plain dictionary out. The command line and :class:`aegl.Detector` call these.

Every function takes ``overrides`` (dotted keys to values, as typed by the user) and a :class:`aegl.progress.Progress`.
Where a trained model is involved, the configuration it was trained with lies below the overrides, so that
``aegl val weights=best.pt`` evaluates on the model's own data at the model's own size unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegl.config import Config, load_config
from aegl.data.source import DataSource, resolve_data
from aegl.errors import ConfigError, DataError
from aegl.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from aegl.engine.backend import Backend
    from aegl.engine.predictor import Prediction

Overrides = Mapping[str, Any]

PREDICT_CONF = 0.3
"""Score threshold of `predict` when none is given: fit to look at, unlike the 1e-4 that AP needs."""


def open_source(config: Config) -> DataSource:
    """The data set that ``config.data`` names. Raises :class:`ConfigError` when it names none."""
    if config.data is None:
        raise ConfigError("data: not given; name a data set (data=shapes_lt, data=lvis_v1) or your own file or folder")
    return resolve_data(config.data, data_dir=Path(config.data_dir), shapes=config.shapes, bands=config.bands)
