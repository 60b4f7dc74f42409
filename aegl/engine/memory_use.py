"""How much memory this process has needed."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_STATUS = Path("/proc/self/status")


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory so far, in MiB: of tensors on a GPU, else of the whole process.

    Args:
        device: where the model is. On a GPU it is what PyTorch's allocator gave out to this process; what the driver
            and cached blocks take comes on top.

    Returns:
        None on systems that do not tell (the CPU under Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_resident_mb()


def peak_resident_mb() -> float | None:
    """Largest resident size of this process so far, in MiB; None on systems that do not tell (Windows)."""
    if _STATUS.is_file():  # rusage would count the process that started this one
        fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) / 2**10
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
