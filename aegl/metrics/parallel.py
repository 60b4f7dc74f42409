"""Work shared out among forked processes, which see all of their parent's arrays without copying them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from aegl.errors import RunError

_MOST_PROCESSES = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    try:
        for first in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            receivers.append(receiver)
            arguments = (function, items[first::processes], sender, tuple(receivers))
            workers.append(context.Process(target=_work, args=arguments))
            workers[-1].start()
            sender.close()
        for number in range(len(items)):
            yield _receive(receivers[number % processes])
    finally:
        for receiver in receivers:
            receiver.close()
        for worker in workers:
            worker.terminate()
            worker.join()


def _processes() -> int:
    can_fork = "fork" in multiprocessing.get_all_start_methods() and hasattr(os, "sched_getaffinity")
    if not can_fork or multiprocessing.current_process().daemon:
        return 1
    return min(len(os.sched_getaffinity(0)), _MOST_PROCESSES)


def _receive(receiver: Connection) -> Any:
    try:
        result, error = receiver.recv()
    except EOFError as ended:
        raise RunError("a process that scores was killed: is there too little memory?") from ended
    if error is not None:
        raise error
    return result


def _work(
    function: Callable[[Any], Any], items: list[Any], sender: Connection, receivers: tuple[Connection, ...]
) -> None:
    # With the ends for reading closed here, a process whose parent is gone ends at its next result.
    for receiver in receivers:
        receiver.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for item in items:
        outcome: tuple[Any, Exception | None]
        try:
            outcome = function(item), None
        except Exception as error:  # raised again by the parent
            outcome = None, error
        try:
            sender.send(outcome)
        except BrokenPipeError:
            return
