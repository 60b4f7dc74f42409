"""Room, time and the end: what does not fit is refused with a reason, and nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from aegl.runtime import Runtime
from aegl.serving import bodies
from aegl.serving.app import make_app
from aegl.serving.model import Model
from aegl.serving.service import Service
from aegl.serving.settings import Settings


class _Held:
    """A runtime whose graph waits until it is released."""

    def __init__(self, runtime: Runtime) -> None:
        self.free = threading.Event()
        self.runs: list[int] = []
        inner = runtime.run
        self.failing: Exception | None = None

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            self.free.wait(10)
            self.runs.append(len(images))
            if self.failing is not None:
                raise self.failing
            return inner(images)

        runtime.run = run  # type: ignore[method-assign]
        self.runtime = runtime


@pytest.fixture
def held(runtime: Runtime) -> _Held:
    return _Held(runtime)


def _serving(held: _Held, work: Callable[[Service, httpx.AsyncClient], Awaitable[Any]], **keys: Any) -> Any:
    async def run() -> Any:
        settings = Settings(**keys)
        service = Service(Model(held.runtime, settings.max_pixels), settings)
        transport = httpx.ASGITransport(make_app(service), raise_app_exceptions=False)
        await service.start()
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://x", timeout=10) as client:
                return await work(service, client)
        finally:
            held.free.set()
            await service.close()

    return asyncio.run(run())


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def test_requests_share_a_run_and_each_gets_the_answer_it_would_get_alone(
    held: _Held, picture: Any, encoded: Any
) -> None:
    images = [picture(seed, size) for seed in range(4) for size in ((48, 64), (64, 48), (40, 64))]

    async def work(service: Service, client: httpx.AsyncClient) -> Any:
        calls = [asyncio.ensure_future(client.post("/predict?conf=0", content=encoded(image))) for image in images]
        await _until(lambda: service.in_flight == len(images))
        held.free.set()
        return [answer.json() for answer in await asyncio.gather(*calls)]

    answers = _serving(held, work, max_delay_ms=100)
    assert answers == [{"model": "toy", **held.runtime.predict([image], conf=0)[0].to_dict()} for image in images]
    assert max(held.runs) > 1


def test_more_requests_than_there_is_room_for_are_told_to_come_back(held: _Held, picture: Any, encoded: Any) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> Any:
        calls = [asyncio.ensure_future(client.post("/predict", content=encoded(picture()))) for _ in range(3)]
        await _until(lambda: service.in_flight == 3)
        refused = await client.post("/predict", content=encoded(picture()))
        alive = await client.get("/v2/health/ready")
        held.free.set()
        return refused, alive, await asyncio.gather(*calls)

    refused, alive, answers = _serving(held, work, concurrency=3)
    assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
    assert "3 requests are in progress" in refused.json()["error"]
    assert alive.status_code == 200
    assert [answer.status_code for answer in answers] == [200] * 3


def test_a_late_answer_is_504_and_its_image_leaves_the_queue(held: _Held, picture: Any, encoded: Any) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> Any:
        first, second = (asyncio.ensure_future(client.post("/predict", content=encoded(picture()))) for _ in range(2))
        late = await asyncio.gather(first, second)
        held.free.set()
        return late, await client.post("/predict", content=encoded(picture())), service.in_flight

    late, later, in_flight = _serving(held, work, timeout_s=0.3, max_batch=1)
    assert [answer.status_code for answer in late] == [504, 504]
    assert "no answer within 0.3 s" in late[0].json()["error"]
    assert later.status_code == 200 and in_flight == 0
    assert len(held.runs) == 2  # the one that ran when time was up, and the last


def test_a_client_that_stalls_or_dawdles_is_408(
    held: _Held, monkeypatch: pytest.MonkeyPatch, picture: Any, encoded: Any
) -> None:
    monkeypatch.setattr(bodies, "STALLED_AFTER", 0.2)
    held.free.set()

    async def slow(pause: float) -> AsyncIterator[bytes]:
        for byte in encoded(picture()):
            yield bytes([byte])
            await asyncio.sleep(pause)

    async def work(service: Service, client: httpx.AsyncClient) -> Any:
        return [await client.post("/predict", content=slow(pause)) for pause in (5, 0.05)]

    stalled, dawdling = _serving(held, work, timeout_s=0.5)
    assert stalled.status_code == dawdling.status_code == 408
    assert "no byte of the body came for 0.2 s" in stalled.json()["error"]
    assert "the body did not come within 0.5 s" in dawdling.json()["error"]
    assert stalled.headers["connection"] == "close"


def test_the_work_of_a_client_that_goes_away_is_dropped(held: _Held, picture: Any, encoded: Any) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> None:
        app, messages = make_app(service), [{"type": "http.request", "body": encoded(picture())}]
        gone = asyncio.Event()

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": []}
        first = asyncio.ensure_future(client.post("/predict", content=encoded(picture())))
        await _until(lambda: service.in_flight == 1)
        await asyncio.sleep(0.05)
        task = asyncio.ensure_future(app(scope, receive, send))
        await _until(lambda: service.metrics.text().find(b"aegl_queue_length 1.0") >= 0)
        gone.set()
        await task
        held.free.set()
        assert (await first).status_code == 200
        assert b'aegl_requests_total{code="499",endpoint="predict"} 1.0' in service.metrics.text()
        await client.post("/predict", content=encoded(picture()))

    _serving(held, work, max_batch=1)
    assert len(held.runs) == 2


def test_a_failing_graph_is_500_and_the_server_lives(held: _Held, picture: Any, encoded: Any) -> None:
    held.free.set()
    held.failing = ValueError("secret details")

    async def work(service: Service, client: httpx.AsyncClient) -> Any:
        failed = await client.post("/predict", content=encoded(picture()))
        held.failing = None
        return failed, await client.post("/predict", content=encoded(picture()))

    failed, later = _serving(held, work)
    assert failed.status_code == 500 and "secret" not in failed.text and failed.json()["error"]
    assert later.status_code == 200


def test_shutting_down_answers_what_is_in_progress_and_refuses_the_rest(
    held: _Held, picture: Any, encoded: Any
) -> None:
    async def work(service: Service, client: httpx.AsyncClient) -> Any:
        call = asyncio.ensure_future(client.post("/predict", content=encoded(picture())))
        await _until(lambda: service.in_flight == 1)
        drained = asyncio.ensure_future(service.drained())
        await asyncio.sleep(0)
        refused = await client.post("/predict", content=encoded(picture()))
        ready, live = await client.get("/v2/health/ready"), await client.get("/v2/health/live")
        assert not drained.done()
        held.free.set()
        answer = await call
        await drained
        return answer, refused, ready, live

    answer, refused, ready, live = _serving(held, work)
    assert [each.status_code for each in (answer, refused, ready, live)] == [200, 503, 503, 200]
    assert "shutting down" in refused.json()["error"]
    assert answer.headers["connection"] == refused.headers["connection"] == "close"


def test_the_figures_count_what_happened(client: TestClient, picture: Any, encoded: Any) -> None:
    for _ in range(3):
        client.post("/predict", content=encoded(picture()))
    client.post("/predict", content=b"no image")
    client.get("/any/path/a/client/thinks/of")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    lines = answer.text.splitlines()
    for line in (
        'aegl_requests_total{code="200",endpoint="predict"} 3.0',
        'aegl_requests_total{code="415",endpoint="predict"} 1.0',
        'aegl_requests_total{code="404",endpoint="other"} 1.0',
        'aegl_request_seconds_count{endpoint="predict"} 4.0',
        "aegl_batch_size_count 3.0",
        "aegl_batch_size_sum 3.0",
        'aegl_batch_size_bucket{le="1.0"} 3.0',
        "aegl_queue_length 0.0",
        "aegl_requests_in_flight 0.0",
    ):
        assert line in lines
