"""Work shared out among forked processes, which see all of their parent's arrays without copying them."""

from __future__ import annotations

import contextlib
import math
import mmap
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import numpy as np

from aegl.errors import RunError

_MOST_PROCESSES = 8
_TURN_BYTES = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def shared_zeros(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array that forked processes fill for their parent to read: results too large to be sent.

    Memory is taken up where it is written to, page by page.
    """
    count = math.prod(shape)
    memory = mmap.mmap(-1, max(1, count * np.dtype(dtype).itemsize))
    return np.frombuffer(memory, dtype=dtype, count=count).reshape(shape)


def ordered_map(function: Callable[[Item], Result], items: list[Item]) -> Iterator[Result]:
    """``function`` of every item, in order; processes that are ahead wait, so that few results are held.

    Where the system does not fork, or there is one core or one item, all of it happens in this process.

    Args:
        function: must not depend on what was done with earlier results; its result must pickle.
        items: what to call it with.

    Raises:
        Whatever ``function`` raises.
        RunError: if a process was killed.
    """
    processes = min(_processes(), len(items))
    if processes < 2:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("fork")
    workers: list[Any] = []
    receivers: list[Connection] = []
    turns = _Turns(len(items))
    try:
        for _ in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            receivers.append(receiver)
            workers.append(context.Process(target=_work, args=(function, items, turns, sender, tuple(receivers))))
            workers[-1].start()
            sender.close()
        yield from _in_order(receivers, len(items))
    finally:
        turns.close()
        for receiver in receivers:
            receiver.close()
        for worker in workers:
            worker.terminate()
            worker.join()


class _Turns:
    """Whose turn it is: numbers from 0 on, each given to one process. A pipe holds the next one, so taking it locks."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._reader, self._writer = os.pipe()
        os.write(self._writer, bytes(_TURN_BYTES))

    def __iter__(self) -> Iterator[int]:
        while True:
            number = int.from_bytes(os.read(self._reader, _TURN_BYTES), "little")
            os.write(self._writer, (number + 1).to_bytes(_TURN_BYTES, "little"))
            if number >= self._count:
                return
            yield number

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


def _processes() -> int:
    can_fork = "fork" in multiprocessing.get_all_start_methods() and hasattr(os, "sched_getaffinity")
    if not can_fork or multiprocessing.current_process().daemon:
        return 1
    return min(len(os.sched_getaffinity(0)), _MOST_PROCESSES)


def _in_order(receivers: list[Connection], count: int) -> Iterator[Any]:
    """Results by number; one that is early is held, and all that its process finds after it must wait."""
    held: dict[int, tuple[Connection, Any, Exception | None]] = {}
    listened_to = list(receivers)
    for number in range(count):
        while number not in held:
            ready = wait(listened_to)
            for receiver in [r for r in listened_to if r in ready]:
                listened_to.remove(receiver)
                outcome = _receive(receiver)
                if outcome is not None:
                    held[outcome[0]] = receiver, *outcome[1:]
        receiver, result, error = held.pop(number)
        listened_to.append(receiver)
        if error is not None:
            raise error
        yield result


def _receive(receiver: Connection) -> tuple[int, Any, Exception | None] | None:
    try:
        return receiver.recv()
    except (EOFError, OSError) as ended:
        raise RunError("a process that scores was killed: is there too little memory?") from ended


def _work(
    function: Callable[[Any], Any],
    items: list[Any],
    turns: _Turns,
    sender: Connection,
    receivers: tuple[Connection, ...],
) -> None:
    # With the ends for reading closed here, a process whose parent is gone ends at its next result.
    for receiver in receivers:
        receiver.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(BrokenPipeError):
        for number in turns:
            sender.send((number, *_outcome(function, items[number])))
        sender.send(None)


def _outcome(function: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    try:
        return function(item), None
    except Exception as error:  # raised again by the parent
        return None, error
