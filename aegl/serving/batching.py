"""Dynamic batching: arrays of one shape that wait at the same time go through the graph together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from aegl.serving.refusal import overloaded

Outputs = Mapping[str, np.ndarray]
Run = Callable[[np.ndarray], Outputs]
_Group = tuple[tuple[int, ...], str]


@dataclass(eq=False)
class _Waiting:
    rows: np.ndarray
    answer: asyncio.Future[Outputs]
    since: float


@dataclass
class Batcher:
    """Collects arrays and runs them together, one run at a time, in a thread of its own.

    Only arrays of the same shape and dtype share a run. Images are not padded to a common size for it, as padding
    reaches into the features near an image's edge: an answer must not depend on who else asked.

    Args:
        run: the graph: ``[b, ...]`` to outputs whose first axis is ``b``.
        max_batch: most rows in a run.
        max_delay: seconds that the first array of a run waits for others.
        ran: told of every finished run: its rows and seconds.
    """

    run: Run
    max_batch: int
    max_delay: float
    ran: Callable[[int, float], None] = lambda rows, seconds: None
    _groups: dict[_Group, deque[_Waiting]] = field(default_factory=dict, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _thread: ThreadPoolExecutor = field(init=False)
    _loop: asyncio.Task[None] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graph")

    @property
    def length(self) -> int:
        """Rows that wait for a run."""
        return sum(len(waiting.rows) for group in self._groups.values() for waiting in group)

    def start(self) -> None:
        """Begin to run what is submitted, in the running event loop."""
        self._loop = asyncio.create_task(self._serve(), name="batcher")

    async def close(self) -> None:
        """Stop; whatever still waits is refused."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        for group in self._groups.values():
            for waiting in group:
                _fail([waiting], overloaded("the server is shutting down"))
        self._groups.clear()
        self._thread.shutdown(wait=True)

    async def submit(self, rows: np.ndarray) -> Outputs:
        """Outputs for ``rows`` (``[b, ...]``, at most ``max_batch``), as if they had been run alone.

        Cancelling the call takes the rows out of the queue. Raises whatever ``run`` raised for them.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(rows, loop.create_future(), loop.time())
        self._groups.setdefault((rows.shape[1:], rows.dtype.str), deque()).append(waiting)
        self._changed.set()
        return await waiting.answer

    async def _serve(self) -> None:
        while True:
            batch = await self._collect()
            try:
                await self._answer(batch)
            except asyncio.CancelledError:
                _fail(batch, overloaded("the server is shutting down"))
                raise

    async def _collect(self) -> list[_Waiting]:
        """Wait until a group is full or its first array has waited long enough; the longest wait goes first."""
        loop = asyncio.get_running_loop()
        while True:
            self._forget_cancelled()
            now, groups = loop.time(), self._groups.values()
            due = [group for group in groups if self._is_full(group) or now >= group[0].since + self.max_delay]
            if due:
                return self._take(min(due, key=lambda group: group[0].since))
            self._changed.clear()
            patience = min((group[0].since for group in groups), default=np.inf) + self.max_delay - now
            try:
                async with asyncio.timeout(None if np.isinf(patience) else patience):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _is_full(self, group: deque[_Waiting]) -> bool:
        return sum(len(waiting.rows) for waiting in group) >= self.max_batch

    def _forget_cancelled(self) -> None:
        for key, group in list(self._groups.items()):
            alive = deque(waiting for waiting in group if not waiting.answer.done())
            if alive:
                self._groups[key] = alive
            else:
                del self._groups[key]

    def _take(self, group: deque[_Waiting]) -> list[_Waiting]:
        batch = [group.popleft()]
        room = self.max_batch - len(batch[0].rows)
        while group and len(group[0].rows) <= room:
            batch.append(group.popleft())
            room -= len(batch[-1].rows)
        return batch

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        rows = batch[0].rows if len(batch) == 1 else np.concatenate([waiting.rows for waiting in batch])
        try:
            outputs = await self._run(rows)
        except Exception as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            for waiting in batch:  # what fails together, for want of memory, may do alone
                await self._answer([waiting])
            return
        start = 0
        for waiting in batch:
            end = start + len(waiting.rows)
            if not waiting.answer.done():
                waiting.answer.set_result({name: value[start:end] for name, value in outputs.items()})
            start = end

    async def _run(self, rows: np.ndarray) -> Outputs:
        loop = asyncio.get_running_loop()
        started = loop.time()
        outputs = await loop.run_in_executor(self._thread, self.run, rows)
        self.ran(len(rows), loop.time() - started)
        return outputs


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
