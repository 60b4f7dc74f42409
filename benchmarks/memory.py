"""How much memory a piece of work takes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aegl.engine.memory_use import peak_memory_mb


def peak_bytes(work: Callable[[], Any], device: str) -> int:
    """The most that one call holds in tensors beyond what was held before it."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Ev Idx"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    held = np.cumsum([size for _, _, size in changes])
    return int(held.max(initial=0))


class Growth:
    """By how much memory grows from now on: of the process, or on a GPU of the allocator.

    Args:
        device: ``cpu`` or a GPU.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        self._before_mb = torch.cuda.memory_allocated() / 2**20 if device != "cpu" else _resident_mb()

    def mb(self) -> float:
        """At most, so far, in MiB."""
        peak = peak_memory_mb(self._device)
        assert peak is not None  # this needs /proc anyway
        return peak - self._before_mb


def _resident_mb() -> float:
    """Resident size of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 2**10
