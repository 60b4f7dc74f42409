"""Rows of the table, measured: a process for each, all of one batch size warm at once and timed in turn."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from aegl.benchmarking.engines import Spec
from aegl.progress import Progress

_ROUND = 5
"""Timed runs of an engine before it is the next one's turn: what slows the machine down slows all of them."""


@dataclass(frozen=True)
class Row:
    """What was measured of one engine at one batch size; or ``skipped``, why nothing was.

    Args:
        engine, device, batch: see :class:`aegl.benchmarking.engines.Spec`.
        p50_ms, p95_ms: median and 95th percentile of the time of a call.
        images_per_s: images over the mean time of a call.
        first_call_s: the first call, compilation and growing of memory included.
        process_mb: largest resident memory of the process, libraries and all.
        gpu_mb: memory it took on the GPU; None on the CPU.
        seconds: of every timed call.
    """

    engine: str
    device: str
    batch: int
    p50_ms: float | None = None
    p95_ms: float | None = None
    images_per_s: float | None = None
    first_call_s: float | None = None
    process_mb: float | None = None
    gpu_mb: float | None = None
    seconds: tuple[float, ...] = ()
    skipped: str | None = None


def measure(specs: Sequence[Spec], *, repeats: int, progress: Progress) -> list[Row]:
    """Measure each; those that share a batch size are timed in turn, in rounds.

    Args:
        specs: the rows.
        repeats: timed runs of each.
        progress: told of every run.
    """
    rows: list[Row] = []
    for batch in dict.fromkeys(spec.batch for spec in specs):
        alike = [spec for spec in specs if spec.batch == batch]
        with contextlib.ExitStack() as stack:
            rows += _side_by_side([stack.enter_context(_Worker(spec)) for spec in alike], repeats, progress)
    return rows


def _side_by_side(workers: list[_Worker], repeats: int, progress: Progress) -> list[Row]:
    for worker in workers:
        progress.message(f"{worker.spec.engine}, batch {worker.spec.batch}: getting ready")
        worker.make_ready()
    running = [worker for worker in workers if worker.failure is None]
    if running:
        progress.start(f"batch {workers[0].spec.batch}", -(-repeats // _ROUND) * len(running), "round")
        for done in range(0, repeats, _ROUND):
            for worker in running:
                worker.run(min(_ROUND, repeats - done))
                progress.update(1, engine=worker.spec.engine)
        progress.finish()
    return [worker.row() for worker in workers]


class _Worker:
    """One process; see :mod:`aegl.benchmarking.worker`."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.failure: str | None = None
        self._ready: dict[str, Any] = {}
        self._seconds: list[float] = []

    def __enter__(self) -> _Worker:
        self._complaints = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aegl.benchmarking.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._complaints.close()

    def make_ready(self) -> None:
        """Build and warm up."""
        self._ready = self._ask(json.dumps(self.spec.to_dict()))

    def run(self, runs: int) -> None:
        """Time so many runs, unless it has failed already."""
        if self.failure is None:
            self._seconds += self._ask(str(runs)).get("seconds", [])

    def row(self) -> Row:
        """What has been measured."""
        spec = self.spec
        if self.failure is not None:
            return Row(spec.engine, spec.device, spec.batch, skipped=self.failure)
        p50, p95 = np.percentile(self._seconds, [50, 95]) * 1000
        return Row(
            spec.engine,
            spec.device,
            spec.batch,
            p50_ms=float(p50),
            p95_ms=float(p95),
            images_per_s=spec.batch / float(np.mean(self._seconds)),
            first_call_s=self._ready["first_call_s"],
            process_mb=self._ready["process_mb"],
            gpu_mb=self._ready["gpu_mb"],
            seconds=tuple(self._seconds),
        )

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        except BrokenPipeError:
            answer = {}
        if not answer:
            answer = {"error": self._why_it_died()}
        self.failure = answer.get("error")
        return answer

    def _why_it_died(self) -> str:
        code = self._process.wait()
        if code < 0:
            likely = ", most likely for want of memory" if code == -9 else ""
            return f"its process was ended by signal {-code}{likely}"
        self._complaints.seek(0)
        said = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return said[-1] if said else f"its process ended with exit code {code}"
