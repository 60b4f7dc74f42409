"""The command line, in this process and in its own, and one small trained run that the tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner, Result

DATA = ("data=shapes_lt", "shapes.classes=6", "shapes.max_instances=12", "shapes.imbalance=6", "shapes.val_per_class=2")
TINY = (*DATA, "model=mini", "iterations=6", "batch=4", "workers=0", "warmup_iterations=2")

Aegl = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Arguments of a training run of a second."""
    return TINY


@pytest.fixture(scope="session")
def tiny_data() -> tuple[str, ...]:
    """Arguments that name the data of that run."""
    return DATA


@pytest.fixture(scope="session")
def aegl() -> Aegl:
    """Run a command in this process, as on a machine without a GPU: there equal runs are equal to the bit."""

    def run(*words: object) -> Result:
        from aegl_cli.main import cli

        with mock.patch("torch.cuda.is_available", return_value=False):
            result = CliRunner().invoke(cli, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception  # what a user would see as a traceback
        return result

    return run


@pytest.fixture(scope="session")
def start_aegl() -> Start:
    """Start a command as a process of its own, as a shell does."""

    def start(*words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "aegl_cli", *(str(word) for word in words)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    return start


@pytest.fixture(scope="session")
def trained(aegl: Aegl, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run. Read only: tests that write give a project of their own."""
    project = tmp_path_factory.mktemp("runs")
    result = aegl("train", *TINY, f"project={project}", "name=first")
    assert result.exit_code == 0, result.stderr
    return project / "first"


@pytest.fixture(scope="session")
def best(trained: Path) -> Path:
    """Its weights."""
    return trained / "weights" / "best.pt"


@pytest.fixture(scope="session")
def exported(aegl: Aegl, best: Path) -> Path:
    """Its weights as ONNX, written beside them."""
    result = aegl("export", f"weights={best}")
    assert result.exit_code == 0, result.stderr
    return best.with_suffix(".onnx")


@pytest.fixture(scope="session")
def val_images(best: Path) -> list[Path]:
    """The images of the val split."""
    from aegl.config import load_config
    from aegl.engine.checkpoint import load_checkpoint
    from aegl.tasks import open_source

    store = open_source(load_config(load_checkpoint(best).config)).open("val")
    return [store.image_path(row) for row in range(len(store))]


@pytest.fixture(scope="session")
def refused() -> Callable[..., None]:
    """Check that a command failed as it should."""

    def check(result: Result, *named: object, lines: int = 1) -> None:
        """Its message has so many lines at most and holds every one of ``named``."""
        assert result.exit_code == 2, (result.exit_code, result.stderr)
        assert result.stdout == ""
        prefix, message = result.stderr.partition("aegl: error: ")[1:]
        assert prefix and "aegl: error: " not in message
        assert len(message.splitlines()) <= lines, message
        assert [word for word in named if str(word) not in message] == [], message
        assert not any(word in result.stderr for word in ("Traceback", "Warning", "\x1b")), result.stderr

    return check
