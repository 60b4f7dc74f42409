"""HTTP connections that do not wait for ever on a client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_WITHIN = 10.0
"""Seconds within which the headers of a request must be complete, from the connection or their first byte on."""
READ_WITHIN = 20.0
"""Seconds for which a client may leave a full buffer of its answer unread."""


class _Timer:
    """Calls something, once, unless stopped before."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, call: Callable[[], object]) -> None:
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(seconds, call)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with an end to its patience.

    uvicorn closes a connection that is idle between requests, but waits without limit for a request's headers and for
    a client that does not read. How long a body may take is decided where the body is read.
    """

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self._headers, self._reading = _Timer(), _Timer()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._headers.start(HEADERS_WITHIN, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of the headers, if they are not complete."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._headers.start(HEADERS_WITHIN, self.transport.abort)
        else:
            self._headers.stop()

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        self._reading.start(READ_WITHIN, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting: the client has read."""
        super().resume_writing()
        self._reading.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting for anything."""
        super().connection_lost(exc)
        self._headers.stop()
        self._reading.stop()
