"""The one place that opens ONNX Runtime sessions: what was asked for comes up, or an error says why not."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import onnxruntime

from aegl.errors import ExportError

LOGGER = logging.getLogger("aegl")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_DEVICE = re.compile(r"auto|cpu|cuda(:(?P<index>[0-9]+))?")


def open_session(path: Path, *, device: str = "auto", threads: int = 0) -> Any:
    """Open an ONNX file.

    Args:
        path: the file.
        device: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` takes CUDA where it comes up, else the CPU, and logs it.
        threads: threads of the CPU provider, 0 for ONNX Runtime's choice.

    Raises:
        ExportError: if the file is missing or no ONNX, or if CUDA was asked for and did not come up.
    """
    wanted = _DEVICE.fullmatch(device)
    if wanted is None:
        raise ExportError(f"device={device}: must be auto, cpu, cuda or cuda:N")
    if not path.is_file():
        raise ExportError(f"{path}: no such ONNX file")
    if device == "cpu":
        return _on_cpu(path, threads)
    session, reason = _on_cuda(path, int(wanted["index"] or 0), threads)
    if reason is None:
        return session
    # Before CUDA is blamed: a file that does not open at all is to be named as such.
    session = session or _on_cpu(path, threads)
    if device != "auto":
        raise ExportError(f"device={device}: the CUDA provider did not come up: {reason}")
    LOGGER.info("%s runs on the CPU: %s", path, reason)
    return session


def _on_cpu(path: Path, threads: int) -> Any:
    try:
        return _open(path, [CPU], threads)
    except Exception as error:  # ONNX Runtime's own exceptions have no common base but this
        raise ExportError(
            f"{path}: ONNX Runtime cannot open it ({first_line(error)}); is it a complete ONNX file?"
        ) from error


def _on_cuda(path: Path, index: int, threads: int) -> tuple[Any, str | None]:
    """A session, if one could be made, and why it does not run on CUDA, if it does not."""
    version = onnxruntime.__version__
    if CUDA not in onnxruntime.get_available_providers():
        return None, f"the installed onnxruntime {version} has no CUDA provider; install onnxruntime-gpu"
    try:
        session = _open(path, [(CUDA, {"device_id": index}), CPU], threads)
    except Exception as error:
        return None, f"onnxruntime-gpu {version} says: {first_line(error)}"
    # The package lists CUDA even where its libraries are missing; only the session tells what came up.
    if CUDA in session.get_providers():
        return session, None
    cuda = getattr(onnxruntime, "cuda_version", "") or "its CUDA"
    return session, (
        f"onnxruntime-gpu {version} was built for CUDA {cuda}; that CUDA, its cuDNN or a GPU driver is missing (see "
        "the CUDA requirements of ONNX Runtime)"
    )


def _open(path: Path, providers: list[Any], threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what went wrong is said by our own errors
    onnxruntime.set_default_logger_severity(4)  # providers that fail to load say so above
    # Without the fallback of the Python package, which prints and goes on on the CPU, then and later.
    return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)


def first_line(error: Exception) -> str:
    """What ONNX Runtime has to say, short."""
    return (str(error).splitlines() or [type(error).__name__])[0]
