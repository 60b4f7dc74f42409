"""What opening a session says where CUDA does not come up; the rest is tested with the backend of the exporter."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from aegl.errors import ExportError
from aegl.runtime import session
from aegl.runtime.session import CPU, CUDA, open_session


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package for CUDA 13 which opens anything, on the providers of ``came_up``."""
    fake = types.SimpleNamespace(__version__="1.99", cuda_version="13.0", came_up=[CPU], said="", opened=[])

    def open_file(path: str, options: Any, providers: list[Any], **keys: Any) -> Any:
        fake.opened.append((providers, options, keys))
        return types.SimpleNamespace(get_providers=lambda: fake.came_up)

    fake.InferenceSession = open_file
    fake.SessionOptions = types.SimpleNamespace
    fake.get_available_providers = lambda: [CUDA, CPU]
    fake.set_default_logger_severity = lambda severity: None
    fake.preload_dlls = lambda: sys.stdout.write(fake.said)
    monkeypatch.setattr(session, "onnxruntime", fake)
    monkeypatch.setattr(session.ctypes, "CDLL", lambda name: None)
    return fake


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    return path


def test_the_libraries_that_are_missing_are_named(package: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package.said = (
        "Failed to load libcublas.so.13: libcublas.so.13: cannot open shared object file: No such file or directory\n"
        "Failed to load libcurand.so.10: libcurand.so.10: cannot open shared object file: No such file or directory\n"
        "Please follow https://example.org to install CUDA.\n"
    )
    with pytest.raises(ExportError) as caught:
        open_session(file, device="cuda")
    message = str(caught.value)
    assert message.startswith(
        "device=cuda: the CUDA provider did not come up: onnxruntime-gpu 1.99 was built for CUDA 13"
    )
    assert message.endswith("not found: libcublas.so.13, libcurand.so.10")
    assert "onnxruntime-gpu[cuda,cudnn]" in message
    assert len(message.splitlines()) == 1
    assert capsys.readouterr() == ("", "")


def test_a_missing_driver_is_named(package: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(session.ctypes, "CDLL", absent)
    with pytest.raises(ExportError, match=r"not found: (libcuda\.so\.1|nvcuda\.dll) \(of the GPU driver\)$"):
        open_session(file, device="cuda")


def test_with_all_libraries_there_none_is_named(package: Any, file: Path) -> None:
    with pytest.raises(ExportError, match="a GPU driver is missing") as caught:
        open_session(file, device="cuda")
    assert "not found" not in str(caught.value)


def test_libraries_are_loaded_before_the_session_is_opened(package: Any, file: Path) -> None:
    """Without PyTorch nobody else has loaded those that the package registry brought."""
    order: list[str] = []
    opens = package.InferenceSession
    package.preload_dlls = lambda: order.append("libraries")
    package.InferenceSession = lambda *a, **k: (order.append("session"), opens(*a, **k))[1]
    package.came_up = [CUDA, CPU]
    open_session(file, device="cuda:1")
    assert order == ["libraries", "session"]
    ((providers, _, keys),) = package.opened
    assert providers == [(CUDA, {"device_id": 1}), CPU]
    assert keys == {"enable_fallback": 0}


def test_the_cpu_needs_no_cuda_library(package: Any, file: Path) -> None:
    package.preload_dlls = lambda: pytest.fail("looked for CUDA")
    open_session(file, device="cpu", threads=3)
    ((providers, options, _),) = package.opened
    assert (providers, options.intra_op_num_threads) == ([CPU], 3)


def test_runs_are_recorded_where_asked_for(package: Any, file: Path, tmp_path: Path) -> None:
    open_session(file, device="cpu", profile=tmp_path / "run")
    open_session(file, device="cpu")
    options = [vars(opened[1]) for opened in package.opened]
    assert options[0]["enable_profiling"] and options[0]["profile_file_prefix"] == str(tmp_path / "run")
    assert "enable_profiling" not in options[1]


def test_what_the_package_prints_stays_inside(package: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    package.said = "Failed to load x: y\n"
    open_session(file, device="auto")
    assert stream.getvalue() == ""
