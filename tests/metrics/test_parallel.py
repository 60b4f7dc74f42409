"""Work in forked processes: the results of a plain loop, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aegl.errors import DataError, RunError
from aegl.metrics import parallel
from aegl.metrics.parallel import ordered_map, shared_zeros

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture(params=[1, 2, 3])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """As if the machine had so many cores."""
    monkeypatch.setattr(parallel, "_processes", lambda: request.param)
    return int(request.param)


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    shared = np.arange(100_000)
    results = list(ordered_map(lambda item: (item, shared[item:]), list(range(count))))
    assert [item for item, _ in results] == list(range(count))
    assert all(array[0] == item for item, array in results)


def test_the_work_is_done_elsewhere(processes: int) -> None:
    begun = shared_zeros((6,), np.int64)

    def work(item: int) -> int:
        begun[item] = 1
        _wait_until(lambda: begun.sum() >= processes)
        return os.getpid()

    pids = set(ordered_map(work, list(range(6))))
    assert pids == {os.getpid()} if processes == 1 else len(pids) == processes and os.getpid() not in pids


def test_a_process_that_is_free_takes_the_next_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_processes", lambda: 2)
    done = shared_zeros((20,), np.int64)

    def work(item: int) -> int:
        if item == 0:
            _wait_until(lambda: done.sum() == 19)  # all the others, by the other process
        done[item] = 1
        return item

    assert list(ordered_map(work, list(range(20)))) == list(range(20))


def test_large_results_that_are_early_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_processes", lambda: 2)
    begun = shared_zeros((20,), np.int64)

    def work(item: int) -> tuple[int, bytes]:
        begun[item] = 1
        if item == 0:
            _wait_until(lambda: begun.sum() >= 3)
            time.sleep(0.1)
        return int(begun.sum()), bytes(1 << 20)

    first, _ = next(ordered_map(work, list(range(20))))
    assert first == 3  # its own, one that the parent holds, one that waits to be sent


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (5, 1000)])
def test_shared_memory_is_read_where_it_was_not_written(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_processes", lambda: 2)
    array = shared_zeros(shape, np.int32)
    assert array.shape == shape and array.dtype == np.int32 and not array.any()

    def work(item: int) -> None:
        array.reshape(-1)[item::2] = item + 1

    list(ordered_map(work, [0, 1]))
    assert array.reshape(-1).tolist() == [1 + position % 2 for position in range(array.size)]


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.usefixtures("processes")
def test_an_error_arrives_as_it_was_raised() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise DataError("annotation 7: broken")
        return item

    results = ordered_map(work, list(range(5)))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(DataError, match="annotation 7: broken"):
        next(results)
    assert not multiprocessing.active_children()


def test_a_killed_process_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_processes", lambda: 2)
    with pytest.raises(RunError, match="was killed"):
        list(ordered_map(lambda item: os.kill(os.getpid(), signal.SIGKILL), [0, 1, 2]))
    assert not multiprocessing.active_children()


def test_stopping_early_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_processes", lambda: 2)
    results = ordered_map(lambda item: bytes(1 << 20), list(range(50)))
    assert len(next(results)) == 1 << 20
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def _begin_and_hang(folder: Path) -> None:
    def work(item: int) -> bytes:
        (folder / str(os.getpid())).touch()
        return bytes(1 << 20)

    parallel._processes = lambda: 2
    for _ in ordered_map(work, list(range(1000))):
        time.sleep(60)


def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("fork").Process(target=_begin_and_hang, args=(tmp_path,))
    parent.start()
    deadline = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    while any(_runs(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
