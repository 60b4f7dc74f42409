"""The one place that opens ONNX Runtime sessions: what was asked for comes up, or an error says why not."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from aegl.errors import ExportError

try:
    import onnxruntime
except ModuleNotFoundError as missing:  # an image without torch installs by hand what it needs
    raise ModuleNotFoundError(
        "exported files run in ONNX Runtime, which is not installed: pip install onnxruntime-gpu, or onnxruntime where "
        "there is no CUDA",
        name=missing.name,
    ) from missing

LOGGER = logging.getLogger("aegl")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_DEVICE = re.compile(r"auto|cpu|cuda(:(?P<index>[0-9]+))?")
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NOT_LOADED = re.compile(r"^Failed to load (\S+?):", re.MULTILINE)


def open_session(path: Path, *, device: str = "auto", threads: int = 0, profile: Path | None = None) -> Any:
    """Open an ONNX file.

    Args:
        path: the file.
        device: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` takes CUDA where it comes up, else the CPU, and logs it.
        threads: threads of the CPU provider, 0 for ONNX Runtime's choice.
        profile: where to write a profile of each run; the beginning of a file's name, which ``end_profiling`` of the
            session completes.

    Raises:
        ExportError: if the file is missing or no ONNX, or if CUDA was asked for and did not come up.
    """
    wanted = _DEVICE.fullmatch(device)
    if wanted is None:
        raise ExportError(f"device={device}: must be auto, cpu, cuda or cuda:N")
    if threads < 0:
        raise ExportError(f"threads={threads}: must be 0 (as many as ONNX Runtime likes) or more")
    if not path.is_file():
        raise ExportError(f"{path}: no such ONNX file")
    options = _options(threads, profile)
    if device == "cpu":
        return _on_cpu(path, options)
    session, reason = _on_cuda(path, int(wanted["index"] or 0), options)
    if reason is None:
        return session
    # Before CUDA is blamed: a file that does not open at all is to be named as such.
    session = session or _on_cpu(path, options)
    if device != "auto":
        raise ExportError(f"device={device}: the CUDA provider did not come up: {reason}")
    LOGGER.info("%s runs on the CPU: %s", path, reason)
    return session


def _options(threads: int, profile: Path | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what went wrong is said by our own errors
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return options


def _on_cpu(path: Path, options: Any) -> Any:
    try:
        return _open(path, [CPU], options)
    except Exception as error:  # ONNX Runtime's own exceptions have no common base but this
        raise ExportError(
            f"{path}: ONNX Runtime cannot open it ({first_line(error)}); is it a complete ONNX file?"
        ) from error


def _on_cuda(path: Path, index: int, options: Any) -> tuple[Any, str | None]:
    """A session, if one could be made, and why it does not run on CUDA, if it does not."""
    version = onnxruntime.__version__
    if CUDA not in onnxruntime.get_available_providers():
        return None, f"the installed onnxruntime {version} has no CUDA provider; install onnxruntime-gpu"
    missing = _load_cuda_libraries()
    try:
        session = _open(path, [(CUDA, {"device_id": index}), CPU], options)
    except Exception as error:
        return None, f"onnxruntime-gpu {version} says: {first_line(error)}"
    # The package lists CUDA even where its libraries are missing; only the session tells what came up.
    if CUDA in session.get_providers():
        return session, None
    cuda = getattr(onnxruntime, "cuda_version", "") or "its CUDA"
    absent = f"; not found: {', '.join(missing)}" if missing else ""
    return session, (
        f"onnxruntime-gpu {version} was built for CUDA {cuda}; that CUDA, its cuDNN or a GPU driver is missing (see "
        f"the CUDA requirements of ONNX Runtime; pip install onnxruntime-gpu[cuda,cudnn] brings the libraries){absent}"
    )


def _load_cuda_libraries() -> list[str]:
    """Load CUDA and cuDNN from where pip put them, which nobody else does without PyTorch; returns what is missing."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnxruntime.preload_dlls()
    missing: list[str] = _NOT_LOADED.findall(said.getvalue())
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        missing.append(f"{_DRIVER} (of the GPU driver)")
    return missing


def _open(path: Path, providers: list[Any], options: Any) -> Any:
    onnxruntime.set_default_logger_severity(4)  # providers that fail to load say so above
    # Without the fallback of the Python package, which prints and goes on on the CPU, then and later.
    return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)


def first_line(error: Exception) -> str:
    """What ONNX Runtime has to say, short."""
    return (str(error).splitlines() or [type(error).__name__])[0]
