"""The one place that opens ONNX Runtime sessions: what was asked for comes up, or an error says why not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnxruntime

from aegl.errors import ExportError

LOGGER = logging.getLogger("aegl")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def open_session(path: Path, *, device: str = "auto", threads: int = 0) -> Any:
    """Open an ONNX file.

    Args:
        path: the file.
        device: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` takes CUDA where it comes up, else the CPU, and logs it.
        threads: threads of the CPU provider, 0 for ONNX Runtime's choice.

    Raises:
        ExportError: if the file is missing or no ONNX, or if CUDA was asked for and did not come up.
    """
    if not path.is_file():
        raise ExportError(f"{path}: no such ONNX file")
    if device == "cpu":
        return _open(path, [CPU], threads)
    if device != "auto" and not device.startswith("cuda"):
        raise ExportError(f"device={device}: must be auto, cpu, cuda or cuda:N")
    index = int(device.partition(":")[2] or 0) if device != "auto" else 0
    offered = CUDA in onnxruntime.get_available_providers()
    session = _open(path, [(CUDA, {"device_id": index}), CPU] if offered else [CPU], threads)
    # The package lists CUDA even where its libraries are missing; only the session tells what came up.
    if CUDA in session.get_providers():
        return session
    reason = _why_not(offered)
    if device != "auto":
        raise ExportError(f"device={device}: the CUDA provider did not come up: {reason}")
    LOGGER.info("%s runs on the CPU: %s", path, reason)
    return session


def _open(path: Path, providers: list[Any], threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what went wrong is said by our own errors
    onnxruntime.set_default_logger_severity(4)  # providers that fail to load say so below
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's own exceptions have no common base but this
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{path}: ONNX Runtime cannot open it ({reason}); is it a complete ONNX file?") from error


def _why_not(offered: bool) -> str:
    version = onnxruntime.__version__
    if not offered:
        return f"the installed onnxruntime {version} has no CUDA provider; install onnxruntime-gpu"
    cuda = getattr(onnxruntime, "cuda_version", "") or "its CUDA"
    return (
        f"onnxruntime-gpu {version} was built for CUDA {cuda}; that CUDA, its cuDNN or a GPU driver is missing (see "
        "the CUDA requirements of ONNX Runtime)"
    )
