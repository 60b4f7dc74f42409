"""The memory that is shown is that of this process, in MiB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aegl.engine import memory_use
from aegl.engine.memory_use import peak_memory_mb, peak_resident_mb

CHILD = f"""
import runpy, sys, types
sys.modules["torch"] = types.ModuleType("torch")
peak = runpy.run_path({memory_use.__file__!r})["peak_resident_mb"]
before = peak()
block = bytearray(b"x") * 2**27
del block
print(before, peak())
"""


def test_it_grows_with_what_is_needed_and_stays() -> None:
    """What the process that started it has, torch at least, does not count, as it would by rusage on Linux."""
    told = subprocess.run([sys.executable, "-c", CHILD], check=True, capture_output=True, text=True).stdout
    before, after = map(float, told.split())
    assert 5 < before < 60
    assert before + 120 < after < before + 140


def test_it_is_the_whole_process_on_the_cpu() -> None:
    told = peak_memory_mb(torch.device("cpu"))
    assert told is not None and told > 100
    assert told == pytest.approx(peak_resident_mb(), rel=0.05)  # it may grow in between


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory_use, "_STATUS", tmp_path / "none")
    assert peak_resident_mb() is not None  # macOS
    monkeypatch.setattr(memory_use, "resource", None)
    assert peak_memory_mb(torch.device("cpu")) is None  # Windows
