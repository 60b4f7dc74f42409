"""From the names of loggers to loggers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aegl.engine.callbacks import Callback
from aegl.engine.loggers.tolerant import Tolerant
from aegl.errors import ConfigError


def require_packages(names: Iterable[str]) -> None:
    """Raise :class:`ConfigError` for loggers whose package is not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        listed = ",".join(missing)
        raise ConfigError(f"loggers={listed}: not installed; pip install 'aegl[{listed}]'")


def make_loggers(
    names: Iterable[str],
    folder: Path,
    config: Mapping[str, Any],
    *,
    logged_until: int | None,
    evaluated_until: int,
) -> list[Callback]:
    """The named loggers, none of which can end the run.

    Args:
        names: among ``tensorboard``, ``wandb``, ``mlflow``.
        folder: of the run.
        config: dotted keys to values.
        logged_until: last iteration whose training record stays; None for a run that begins.
        evaluated_until: the same for evaluations.

    Raises:
        ConfigError: if a package is missing or cannot be imported.
    """
    require_packages(names)
    made = []
    for name in names:
        try:
            logger = _make(name, folder, config, logged_until, evaluated_until)
        except ImportError as error:
            raise ConfigError(f"loggers={name}: cannot be imported ({error}); pip install 'aegl[{name}]'") from error
        made.append(Tolerant(logger, name))
    return list(made)


def _make(
    name: str, folder: Path, config: Mapping[str, Any], logged_until: int | None, evaluated_until: int
) -> Callback:
    if name == "tensorboard":
        from aegl.engine.loggers.tensorboard import TensorBoardLogger

        return TensorBoardLogger(folder, config, logged_until=logged_until or 0, evaluated_until=evaluated_until)
    resumed = logged_until is not None
    if name == "wandb":
        from aegl.engine.loggers.wandb import WandbLogger

        return WandbLogger(folder, config, resumed=resumed)
    from aegl.engine.loggers.mlflow import MlflowLogger

    return MlflowLogger(folder, config, resumed=resumed)
