"""What bounds a training step: the longest kernels, the share of the time in which the GPU computes, device waits."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from section import Section, TrainingStep, open_section
from torch.profiler import ProfilerActivity, profile

STEPS, SHOWN = 3, 10


def profile_steps(section: Section, model: str, batch: int) -> None:
    """Kernels by time; the rest of the wall time is the GPU waiting for the CPU to launch."""
    setting = f"{model} bf16, batch {batch}"
    with section.attempt(setting):
        step = TrainingStep(section, model, batch=batch)
        section.seconds(step, 1, warmup=1 if section.smoke else 3)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if section.is_cuda else [])]
        with profile(activities=activities) as profiler:
            began = time.perf_counter()
            for _ in range(STEPS):
                step()
            section.synchronize()
            wall = time.perf_counter() - began
        attribute = "self_device_time_total" if section.is_cuda else "self_cpu_time_total"
        entries: list[Any] = [e for e in profiler.key_averages() if not section.is_cuda or _is_kernel(e)]
        entries.sort(key=lambda entry: -getattr(entry, attribute))
        total = sum(getattr(entry, attribute) for entry in entries) / 1e6
        busy = {"gpu_busy_percent": round(100 * total / wall, 1)} if section.is_cuda else {}
        section.add(setting, ms=round(1000 * wall / STEPS, 1), **busy, kernels=sum(e.count for e in entries) // STEPS)
        for entry in entries[:SHOWN]:
            spent = getattr(entry, attribute) / 1e6
            section.add(
                f"{setting}: {entry.key[:70]}",
                share_percent=round(100 * spent / total, 1),
                ms_per_step=round(1000 * spent / STEPS, 2),
                calls_per_step=entry.count // STEPS,
            )


def count_waits(section: Section, batch: int) -> None:
    """How often a step makes the CPU wait for the GPU, and where."""
    setting = f"device waits of a step, r50 bf16, batch {batch}"
    if not section.is_cuda:
        section.skip(setting, "counted on CUDA only")
        return
    with section.attempt(setting):
        step = TrainingStep(section, batch=batch)
        section.seconds(step, 1, warmup=3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits = [w for w in caught if "synchroniz" in str(w.message)]
        section.add(setting, waits=len(waits))
        places = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in waits)
        for place, count in places.most_common(SHOWN):
            section.add(f"device waits at {place}", waits=count)


def _is_kernel(entry: Any) -> bool:
    return entry.device_type == torch.autograd.DeviceType.CUDA


def main() -> None:
    """Run the section."""
    section = open_section(__doc__)
    batch = 1 if section.smoke else 8
    count_waits(section, batch)
    for model in ("r50", "swin_t")[: 1 if section.smoke else 2]:
        profile_steps(section, model, batch)


if __name__ == "__main__":
    main()
