"""Ends a process that hangs, and says where: a rank that waits for ever costs as much as one that trains."""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

LOGGER = logging.getLogger("aegl")

EXIT_CODE = 75
"""Of a process that the watchdog ended: EX_TEMPFAIL of sysexits.h, "try again"."""
_PATIENCE_WITH_EVALUATION = 10
"""Scoring a large split takes the main process long, while the others wait for it and do nothing."""


class Watchdog:
    """Context in which a thread looks on whether the loop makes progress.

    It counts the time that it has itself been awake, so a suspended machine or a stopped process is no hang. No
    exception can reach a thread that hangs in a system call or in a kernel, so the process is ended on the spot.

    Args:
        seconds: longest time without :meth:`progress`; ``math.inf`` for no watching.
        report: file that the stacks of all threads are written to.
        end: ends the process; called with :data:`EXIT_CODE`.
    """

    def __init__(self, seconds: float, report: Path, *, end: Callable[[int], object] = os._exit) -> None:
        self._seconds = seconds
        self._report = report
        self._end = end
        self._phase = "starting"
        self._silent = 0.0
        self._limit = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="aegl-watchdog", daemon=True)

    def progress(self, phase: str) -> None:
        """Something is finished, and ``phase`` begins."""
        self._phase = phase
        self._silent = 0.0

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """While the model is evaluated: ten times as much patience."""
        self.progress("evaluation")
        self._limit = self._seconds * _PATIENCE_WITH_EVALUATION
        try:
            yield
        finally:
            self.progress("training")
            self._limit = self._seconds

    def __enter__(self) -> Self:
        """Begin to watch."""
        if self._seconds < float("inf"):
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Watch no longer."""
        self._stop.set()

    def _watch(self) -> None:
        tick = min(self._seconds / 4, 5.0)
        before = time.monotonic()
        while not self._stop.wait(tick):
            now = time.monotonic()
            self._silent += min(now - before, 2 * tick)
            before = now
            if self._silent > self._limit:
                self._give_up()
                return

    def _give_up(self) -> None:
        message = (
            f"no progress for {self._silent / 60:.3g} minutes (watchdog_minutes) in: {self._phase}. The stacks of all "
            f"threads are in {self._report}. The process ends; go on with resume=true"
        )
        try:
            with self._report.open("w", encoding="utf-8") as file:
                file.write(message + "\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            message += f" ({self._report} cannot be written: {error.strerror})"
        LOGGER.error(message)
        self._end(EXIT_CODE)
