"""A server's life: a socket, uvicorn on it, and an end at which every request has its answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from aegl.errors import RunError
from aegl.runtime import Runtime
from aegl.serving.app import make_app
from aegl.serving.connection import PatientProtocol
from aegl.serving.model import Model
from aegl.serving.service import Service
from aegl.serving.settings import Settings

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_FAREWELL = 2.0
"""Seconds, once nothing is in progress, in which connections that are still open get an answer, 503, and are closed."""
_IDLE = 75
"""Seconds that a connection may be idle: longer than the 60 of most proxies, which would meet one that just closed."""


def serve(
    runtime: Runtime, settings: Settings, *, host: str, port: int, started: Callable[[str], None]
) -> signal.Signals | None:
    """Serve a model until SIGTERM or SIGINT.

    The signal ends it politely: what is in progress is answered, what is new refused with 503. A second signal ends
    it at once.

    Args:
        runtime: the open file.
        settings: limits and batching.
        host: address to listen on.
        port: port to listen on, 0 for any free one.
        started: told the URL once requests are answered.

    Returns:
        The signal, None where another thread stopped it.

    Raises:
        RunError: if the address cannot be listened on, or the model does not run.
    """
    listener = _listen(host, port)
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listener.getsockname()[1]}"
    with contextlib.closing(listener):
        model = Model(runtime, settings.max_pixels)
        model.warm_up()
        server = Server(Service(model, settings), started=lambda: started(url))
        server.run(sockets=[listener])
    return server.received


class Server(uvicorn.Server):
    """uvicorn, which ends in the order described in :func:`serve`.

    Args:
        service: what to serve.
        started: told once requests are answered.
    """

    def __init__(self, service: Service, *, started: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                make_app(service),
                http=PatientProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_IDLE,
            )
        )
        self.received: signal.Signals | None = None
        self._service = service
        self._told = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._told()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what is new, answer what is in progress, stop listening, close."""
        drained = asyncio.ensure_future(self._service.drained())
        while not (drained.done() or self.force_exit):
            await asyncio.sleep(0.02)
        drained.cancel()
        if not self.force_exit:
            await self._stop_listening(sockets or [])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    while self.server_state.connections:
                        await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Close the listening sockets after taking in what the kernel has accepted for them, which it would reset."""
        waiting = [connection for listener in sockets for connection in _accepted(listener)]
        for server in self.servers:
            server.close()
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> PatientProtocol:
        return PatientProtocol(self.config, self.server_state, self.lifespan.state)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals; unlike uvicorn's own, without raising them again: a server is meant to end by one."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the server politely, the second at once."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self.received = signal.Signals(sig)


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    with contextlib.suppress(OSError):
        while True:
            connection = listener.accept()[0]
            connection.setblocking(False)
            yield connection


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        # Of a name that does not resolve, errno is none of the system's.
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise RunError(
            f"host={host}, port={port}: cannot be listened on ({reason}); give another host= or port="
        ) from (error)
