"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

_LINE_EVERY = 10.0
"""Seconds between lines where standard error is no terminal."""


class ConsoleProgress:
    """Implements :class:`aegl.progress.Progress`.

    Args:
        stream: where to write; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._name = ""
        self._unit = ""
        self._total: int | None = None
        self._done = 0
        self._begun_with = 0
        self._started = self._shown = 0.0
        self._fields: dict[str, float | str] = {}

    def start(self, name: str, total: int | None, unit: str) -> None:
        """Begin a bar."""
        self._name, self._total, self._unit = name, total, unit
        self._done = self._begun_with = 0
        self._fields = {}
        self._started = self._shown = time.monotonic()

    def update(self, n: int = 1, **fields: float | str) -> None:
        """Move the bar and renew its figures."""
        if self._done == 0 and n > 1:
            self._begun_with = n  # a resumed run: the time left follows from what is done now
        self._done += n
        self._fields.update(fields)
        now = time.monotonic()
        if now - self._shown >= (0.1 if self._is_terminal else _LINE_EVERY):
            self._shown = now
            self._write(self._line(now))

    def message(self, text: str) -> None:
        """Write a line of its own."""
        self._clear()
        self._stream.write(text + "\n")
        self._stream.flush()

    def finish(self) -> None:
        """Leave the last state of the bar."""
        if self._name:
            self._clear()
            self._stream.write(self._line(time.monotonic()) + "\n")
            self._stream.flush()
            self._name = ""

    def _line(self, now: float) -> str:
        seconds = now - self._started
        rate = (self._done - self._begun_with) / seconds if seconds > 0 else 0.0
        of = f"/{self._total}" if self._total is not None else ""
        parts = [f"{self._name} {self._done}{of} {_plural(self._unit)}", f"{rate:.1f}/s"]
        if self._total is not None and rate > 0:
            parts.append(f"{_duration(max(self._total - self._done, 0) / rate)} left")
        parts += [f"{key} {_figure(value)}" for key, value in self._fields.items() if key != "eta_s"]
        return "  ".join(parts)

    def _write(self, line: str) -> None:
        if self._is_terminal:
            self._stream.write(f"\r\x1b[2K{line}")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _clear(self) -> None:
        if self._is_terminal and self._name:
            self._stream.write("\r\x1b[2K")


class LogToProgress(logging.Handler):
    """Shows the library's log records as messages."""

    def __init__(self, progress: ConsoleProgress) -> None:
        super().__init__(logging.INFO)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record; warnings and errors say that they are."""
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        self._progress.message(prefix + record.getMessage())


def _plural(unit: str) -> str:
    return f"{unit}es" if unit.endswith("s") else f"{unit}s"


def _figure(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
