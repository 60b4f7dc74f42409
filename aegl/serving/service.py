"""Requests between their arrival and their answer: what may be in progress, for how long, and through which steps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from aegl.serving.batching import Batcher, Outputs
from aegl.serving.bodies import ClientGone, read_body, swallow
from aegl.serving.metrics import Metrics
from aegl.serving.model import Model
from aegl.serving.refusal import CLOSE, Refusal, overloaded
from aegl.serving.settings import Settings

T = TypeVar("T")


class Service:
    """One model, its queue, and the account of what is in progress.

    Args:
        model: what is served.
        settings: limits and batching.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model = model
        self.settings = settings
        self.in_flight = 0
        self.draining = False
        self.metrics = Metrics(lambda: self._batcher.length, lambda: self.in_flight)
        self._batcher = Batcher(model.run, settings.max_batch, settings.max_delay_ms / 1000, self.metrics.ran)
        # Few threads: decoding is where a request takes most memory.
        self._threads = ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="images")

    async def start(self) -> None:
        """Begin to answer."""
        self._batcher.start()

    async def close(self) -> None:
        """Stop; see :meth:`drained` for how to do so politely."""
        await self._batcher.close()
        self._threads.shutdown(wait=True)

    async def drained(self) -> None:
        """Refuse what is new from now on, and wait until all that is in progress is answered."""
        self.draining = True
        while self.in_flight:
            await asyncio.sleep(0.02)

    async def in_thread(self, step: Callable[..., T], *args: Any) -> T:
        """Run a step that computes, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, step, *args)

    async def infer(self, rows: Any) -> Outputs:
        """Outputs of the graph; see :meth:`Batcher.submit`."""
        return await self._batcher.submit(rows)

    async def answer(self, request: Request, work: Callable[[bytes], Awaitable[T]]) -> T:
        """Read the body and do the work, within the limits.

        Raises:
            Refusal: 503 when there is no room or the server is shutting down, 504 when time is up, and what
                :func:`read_body` and ``work`` refuse.
            ClientGone: when the client closes the connection; its work is dropped.
        """
        await self._require_room(request)
        self.in_flight += 1
        limit, body = f"within {self.settings.timeout_s:g} s (timeout_s)", None
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                body = await read_body(request, self.settings.max_body)
                return await _while_connected(request, work(body))
        except TimeoutError:
            late = Refusal(504, f"no answer {limit}") if body else Refusal(408, f"the body did not come {limit}", CLOSE)
            raise late from None
        finally:
            self.in_flight -= 1

    async def _require_room(self, request: Request) -> None:
        reason = None
        if self.draining:
            reason = "the server is shutting down"
        elif self.in_flight >= self.settings.concurrency:
            reason = f"{self.in_flight} requests are in progress, no more are taken (concurrency)"
        if reason is not None:
            await swallow(request, self.settings.max_body)
            raise overloaded(reason)


async def _while_connected(request: Request, work: Awaitable[T]) -> T:
    """Do the work, unless the client goes away before it is done."""
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)
