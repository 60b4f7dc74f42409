"""A request to stop (SIGTERM, SIGINT) that waits for the end of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import torch

from aegl.engine.distributed import World

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Context in which the first SIGTERM or SIGINT is noted and a second one acts as usual.

    Handlers can be set in the main thread only; in another thread signals keep their usual effect.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._former: dict[signal.Signals, Any] = {}

    def agreed(self, world: World) -> bool:
        """Whether any process was asked to stop: a collective call, for all to stop after the same step."""
        if world.size == 1:
            return self.received is not None
        flag = torch.tensor([self.received is not None], dtype=torch.int32, device=world.device)
        return bool(world.sum_(flag))

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
        self.received = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
