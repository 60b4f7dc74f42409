"""What a server tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

__all__ = ["CONTENT_TYPE", "Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


class Metrics:
    """The figures of one server, in a registry of its own.

    Args:
        queue_length: asked, at every reading, how many images wait for the graph.
        in_flight: asked likewise how many requests are in progress.
    """

    def __init__(self, queue_length: Callable[[], float], in_flight: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "aegl_requests", "Requests by endpoint and HTTP status.", ["endpoint", "code"], registry=self._registry
        )
        self._latency = Histogram(
            "aegl_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch = Histogram(
            "aegl_batch_size", "Images in a run of the graph.", buckets=_ROWS, registry=self._registry
        )
        self._graph = Histogram(
            "aegl_graph_seconds", "Seconds of a run of the graph.", buckets=_SECONDS, registry=self._registry
        )
        Gauge("aegl_queue_length", "Images that wait for the graph.", registry=self._registry).set_function(
            queue_length
        )
        Gauge("aegl_requests_in_flight", "Inference requests in progress.", registry=self._registry).set_function(
            in_flight
        )
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def answered(self, endpoint: str, code: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(endpoint, str(code)).inc()
        self._latency.labels(endpoint).observe(seconds)

    def ran(self, rows: int, seconds: float) -> None:
        """Count a run of the graph."""
        self._batch.observe(rows)
        self._graph.observe(seconds)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)
