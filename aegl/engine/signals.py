"""A request to stop (SIGTERM, SIGINT) that waits for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from aegl.errors import RunError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(RunError):
    """A run that a signal stopped; the exit code is 128 + the signal's number, as of any program a signal ends."""

    def __init__(self, message: str, received: signal.Signals) -> None:
        super().__init__(message)
        self.exit_code = 128 + received


class StopRequest:
    """Context in which the first SIGTERM or SIGINT is noted and a second one acts as usual.

    Handlers can be set in the main thread only; in another thread signals keep their usual effect.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        """What this process was sent."""
        self._former: dict[signal.Signals, Any] = {}
        self._message: str | None = None

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Where everything is saved, so that a signal need not wait.

        Raises:
            StoppedError: inside, with ``message``, when a signal comes.
        """
        self._message = message
        try:
            if self.received:
                raise StoppedError(f"stopped by {self.received.name} {message}", self.received)
            yield
        finally:
            self._message = None

    def __enter__(self) -> Self:
        """Set the handlers."""
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the former handlers back."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()
        if self._message is not None:
            raise StoppedError(f"stopped by {self.received.name} {self._message}", self.received)

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
