"""What this machine and this installation can do, for `aegl checks`."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch", "torchvision", "timm", "numpy", "pycocotools", "lvis", "onnx", "onnxruntime", "onnxruntime-gpu", "click",
    "pydantic",
)  # fmt: skip


def describe_environment() -> dict[str, Any]:
    """Versions, devices, memory and disk as plain values."""
    import torch

    from aegl._version import __version__
    from aegl.data.build import cache_root

    cuda = torch.cuda.is_available()
    return {
        "aegl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu_cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        "cache": str(cache_root()),
        "cuda": torch.version.cuda if cuda else None,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if cuda else [],
        "onnxruntime_providers": _providers(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _providers() -> list[str]:
    import onnxruntime

    providers: list[str] = onnxruntime.get_available_providers()
    return providers


def _memory_gb() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
