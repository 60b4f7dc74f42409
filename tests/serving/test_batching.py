"""What waits at the same time runs together, and nobody's answer depends on who else asked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import pytest

from aegl.serving.batching import Batcher
from aegl.serving.refusal import Refusal


class _Graph:
    """Doubles its rows, and remembers the shapes it saw; held up until released."""

    def __init__(self, *, held: bool = False) -> None:
        self.seen: list[tuple[int, ...]] = []
        self.free = threading.Event()
        if not held:
            self.free.set()

    def __call__(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        self.free.wait(10)
        self.seen.append(rows.shape)
        if (rows == 13).any():
            raise RuntimeError("unlucky")
        return {"double": rows * 2, "sum": rows.reshape(len(rows), -1).sum(1)}


def _with_batcher(
    graph: _Graph, work: Callable[[Batcher], Awaitable[Any]], *, max_batch: int = 4, delay: float = 0.05
) -> Any:
    async def run() -> Any:
        batcher = Batcher(graph, max_batch, delay)
        batcher.start()
        try:
            return await work(batcher)
        finally:
            graph.free.set()
            await batcher.close()

    return asyncio.run(run())


def _rows(value: float, *shape: int) -> np.ndarray:
    return np.full(shape or (1, 2), value)


def test_arrays_that_wait_together_run_together_and_each_gets_its_own() -> None:
    graph = _Graph()

    async def work(batcher: Batcher) -> Any:
        return await asyncio.gather(*(batcher.submit(_rows(value)) for value in range(4)))

    answers = _with_batcher(graph, work)
    assert graph.seen == [(4, 2)]
    for value, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["double"], _rows(2 * value))
        np.testing.assert_array_equal(answer["sum"], [2 * value])


def test_arrays_of_another_shape_or_type_do_not_share_a_run() -> None:
    graph = _Graph()

    async def work(batcher: Batcher) -> Any:
        mixed = [_rows(1), _rows(1, 1, 3), _rows(2), _rows(1).astype(np.uint8), _rows(2, 1, 3)]
        return await asyncio.gather(*map(batcher.submit, mixed))

    answers = _with_batcher(graph, work)
    assert sorted(graph.seen) == [(1, 2), (2, 2), (2, 3)]
    assert [answer["double"].shape for answer in answers] == [(1, 2), (1, 3), (1, 2), (1, 2), (1, 3)]


def test_no_run_is_larger_than_allowed() -> None:
    graph = _Graph()

    async def work(batcher: Batcher) -> Any:
        return await asyncio.gather(
            *(batcher.submit(_rows(value, size, 2)) for value, size in enumerate((2, 1, 2, 4, 1, 1, 3)))
        )

    answers = _with_batcher(graph, work)
    assert max(shape[0] for shape in graph.seen) <= 4 and sum(shape[0] for shape in graph.seen) == 14
    for value, answer in enumerate(answers):
        assert (answer["double"] == 2 * value).all()


def test_a_lone_array_waits_no_longer_than_the_delay_and_a_full_batch_not_at_all() -> None:
    async def alone(batcher: Batcher) -> float:
        started = time.perf_counter()
        await batcher.submit(_rows(1))
        return time.perf_counter() - started

    async def full(batcher: Batcher) -> float:
        started = time.perf_counter()
        await asyncio.gather(*(batcher.submit(_rows(1)) for _ in range(4)))
        return time.perf_counter() - started

    assert 0.3 <= _with_batcher(_Graph(), alone, delay=0.3) < 3
    assert _with_batcher(_Graph(), full, delay=5) < 3


def test_what_arrives_during_a_run_goes_into_the_next_one_together() -> None:
    graph = _Graph(held=True)

    async def work(batcher: Batcher) -> int:
        first = asyncio.ensure_future(batcher.submit(_rows(0)))
        await asyncio.sleep(0.1)
        others = [asyncio.ensure_future(batcher.submit(_rows(value))) for value in range(3)]
        await asyncio.sleep(0.1)
        waiting = batcher.length
        graph.free.set()
        await asyncio.gather(first, *others)
        return waiting

    assert _with_batcher(graph, work, delay=0.01) == 3
    assert graph.seen == [(1, 2), (3, 2)]


def test_cancelling_takes_an_array_out_of_the_queue() -> None:
    graph = _Graph(held=True)

    async def work(batcher: Batcher) -> None:
        first = asyncio.ensure_future(batcher.submit(_rows(0)))
        await asyncio.sleep(0.1)
        gone, stays = (asyncio.ensure_future(batcher.submit(_rows(value))) for value in (1, 2))
        await asyncio.sleep(0.02)
        gone.cancel()
        graph.free.set()
        np.testing.assert_array_equal((await stays)["double"], _rows(4))
        await first

    _with_batcher(graph, work, delay=0.01)
    assert graph.seen == [(1, 2), (1, 2)]


def test_one_that_fails_does_not_take_the_others_with_it() -> None:
    graph = _Graph()

    async def work(batcher: Batcher) -> Any:
        calls = (batcher.submit(_rows(value)) for value in (1, 13, 2))
        return await asyncio.gather(*calls, return_exceptions=True)

    first, unlucky, last = _with_batcher(graph, work)
    assert isinstance(unlucky, RuntimeError)
    assert (first["sum"], last["sum"]) == (2, 4)


def test_closing_refuses_what_still_waits() -> None:
    graph = _Graph(held=True)

    async def work(batcher: Batcher) -> list[Any]:
        running = asyncio.ensure_future(batcher.submit(_rows(0)))
        await asyncio.sleep(0.1)
        waiting = asyncio.ensure_future(batcher.submit(_rows(0)))
        await asyncio.sleep(0.02)
        graph.free.set()
        await batcher.close()
        return await asyncio.gather(running, waiting, return_exceptions=True)

    for error in _with_batcher(graph, work, delay=0.01):
        assert isinstance(error, Refusal) and error.status == 503


@pytest.mark.parametrize("seed", range(3))
def test_under_load_every_array_gets_the_answer_it_would_get_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(int(rng.integers(1, 5)), int(rng.integers(1, 3)))) for _ in range(100)]

    async def late(batcher: Batcher, array: np.ndarray, delay: float) -> Mapping[str, np.ndarray]:
        await asyncio.sleep(delay)
        return await batcher.submit(array)

    async def work(batcher: Batcher) -> Any:
        return await asyncio.gather(*(late(batcher, array, rng.uniform(0, 0.1)) for array in arrays))

    for array, answer in zip(arrays, _with_batcher(_Graph(), work, delay=0.002), strict=True):
        np.testing.assert_array_equal(answer["double"], array * 2)
