"""Keeps the failures of a logger away from training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aegl.engine.callbacks import Callback, LogRecord, TrainResult

LOGGER = logging.getLogger("aegl")

GIVEN_UP_AFTER = 3
"""Failures in a row after which a logger is not called again: each may have held up training until a time-out."""


class Tolerant(Callback):
    """Hands on what happens to a logger; where that fails, a warning is given once and training goes on.

    Args:
        logger: the logger.
        name: how warnings call it.
    """

    def __init__(self, logger: Callback, name: str) -> None:
        self._logger = logger
        self._name = name
        self._failures = 0
        self._warned = False

    def on_train_start(self, iteration: int, total: int) -> None:
        """Hand on."""
        self._hand_on("on_train_start", iteration, total)

    def on_log(self, record: LogRecord) -> None:
        """Hand on."""
        self._hand_on("on_log", record)

    def on_val_end(self, iteration: int, summary: Mapping[str, Any]) -> None:
        """Hand on."""
        self._hand_on("on_val_end", iteration, summary)

    def on_checkpoint(self, iteration: int, path: Path) -> None:
        """Hand on."""
        self._hand_on("on_checkpoint", iteration, path)

    def on_train_end(self, result: TrainResult) -> None:
        """Hand on."""
        self._hand_on("on_train_end", result)

    def on_exit(self) -> None:
        """Hand on."""
        self._hand_on("on_exit")

    def _hand_on(self, hook: str, *args: Any) -> None:
        if self._failures >= GIVEN_UP_AFTER:
            return
        try:
            getattr(self._logger, hook)(*args)
        except Exception as error:  # whatever a client raises: the run matters more than its record elsewhere
            self._failures += 1
            if not self._warned:
                reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
                LOGGER.warning("loggers=%s: %s; training goes on, results.csv has everything", self._name, reason)
                self._warned = True
            if self._failures == GIVEN_UP_AFTER:
                LOGGER.warning("loggers=%s: failed %d times in a row and is left alone", self._name, GIVEN_UP_AFTER)
        else:
            self._failures = 0
