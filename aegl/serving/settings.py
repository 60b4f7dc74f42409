"""What a server is told, in plain values."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 2**20


@dataclass(frozen=True)
class Settings:
    """Limits and batching of a server.

    Args:
        max_batch: most images in one run of the graph.
        max_delay_ms: how long an image waits for others to join its run, milliseconds.
        max_pixels: most pixels of an image file, checked before it is decoded.
        max_body_mb: longest body of a request, MiB.
        concurrency: most requests in progress at once, those that wait for the graph included.
        timeout_s: most seconds from the arrival of a request to its answer.
        default_conf: lowest score that ``/predict`` reports when the request names none.
    """

    max_batch: int = 8
    max_delay_ms: float = 5.0
    max_pixels: int = 50_000_000
    max_body_mb: float = 32.0
    concurrency: int = 64
    timeout_s: float = 30.0
    default_conf: float = 0.3

    @property
    def max_body(self) -> int:
        """Longest body of a request, bytes."""
        return int(self.max_body_mb * MEGABYTE)
