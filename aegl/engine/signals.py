"""A request to stop (SIGTERM, SIGINT) that waits for the end of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import torch

from aegl.engine.distributed import World
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
        self._received: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}

    def agreed(self, world: World) -> signal.Signals | None:
        """The signal that any process was sent, if any: a collective call, for all to stop after the same step."""
        if world.size == 1:
            return self._received
        number = torch.tensor([self._received or 0], dtype=torch.int32, device=world.device)
        received = max(int(each) for each in world.gather(number))
        return signal.Signals(received) if received else None

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
        self._received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
