"""A run that is stopped from outside, whichever way, goes on and ends as if nothing had happened."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from aegl.engine.checkpoint import Checkpoint, load_checkpoint
from aegl.engine.signals import StoppedError

TOTAL = 40
LONG = (f"iterations={TOTAL}", "checkpoint_every=3", "log_every=1", "val_every=10", "ema=true")


def rows(run: Path) -> list[dict[str, str]]:
    """Rows of ``results.csv``, without the columns of the clock."""
    file = run / "results.csv"
    if not file.is_file():
        return []
    with file.open(newline="") as stream:
        found = list(csv.DictReader(stream))
    for row in found:
        for column in ("seconds", "images_per_second", "data_share", "memory_mb"):
            row.pop(column, None)
    return found


def same(left: Any, right: Any) -> bool:
    """Equal in every bit, through nested containers."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def last(run: Path) -> Checkpoint:
    return load_checkpoint(run / "weights" / "last.pt")


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Until the run has logged a step; fails if it ends before, or gets nowhere."""
    deadline = time.monotonic() + 180
    while not any(int(row["iteration"] or 0) >= step for row in rows(run)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def training(tiny: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    settings = [word for word in tiny if not word.startswith("iterations=")]
    return ("train", *settings, *LONG, f"project={tmp_path}", "name=x")


@pytest.fixture(scope="module")
def unbroken(aegl: Any, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("unbroken")
    settings = [word for word in tiny if not word.startswith("iterations=")]
    result = aegl("train", *settings, *LONG, f"project={project}", "name=x")
    assert result.exit_code == 0, result.stderr
    return project / "x"


@pytest.fixture
def started(start_aegl: Any, training: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    process = start_aegl(*training, "--json")
    yield process
    process.kill()
    process.communicate()


def check_same_end(run: Path, unbroken: Path) -> None:
    resumed, expected = last(run), last(unbroken)
    assert resumed.iteration == TOTAL
    assert same(resumed.model, expected.model)
    assert resumed.training is not None and expected.training is not None
    assert same(vars(resumed.training), vars(expected.training))
    assert same(*(load_checkpoint(folder / "weights" / "best.pt").model for folder in (run, unbroken)))
    assert rows(run) == rows(unbroken)  # no row twice, none missing, and the same figures


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(
    aegl: Any, started: subprocess.Popen[str], unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "x"
    wait_for_step(started, run, 8)  # an epoch is 2.5 steps: neither at its end nor at a checkpoint
    started.send_signal(signal.SIGKILL)
    assert started.wait(60) == -signal.SIGKILL
    killed_at = last(run).iteration
    assert 6 <= killed_at < TOTAL - 1
    result = aegl("train", "resume=true", "name=x", f"project={tmp_path}")
    assert result.exit_code == 0, result.stderr
    assert f"resuming {run} after step {killed_at}" in result.stderr
    check_same_end(run, unbroken)


@pytest.mark.slow
def test_an_interrupted_run_saves_says_how_to_go_on_and_does(
    aegl: Any, started: subprocess.Popen[str], unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "x"
    wait_for_step(started, run, 5)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "Traceback" not in err
    step = last(run).iteration
    message = err.splitlines()[-1]
    assert message.startswith(f"aegl: error: stopped by SIGINT after iteration {step} of {TOTAL}")
    advice = f"resume=true weights={run / 'weights' / 'last.pt'}"
    assert advice in message
    assert json.loads(out)["exit_code"] == 130
    result = aegl("train", *advice.split())
    assert result.exit_code == 0, result.stderr
    check_same_end(run, unbroken)


def test_any_signal_gives_the_exit_code_of_a_program_that_it_ended() -> None:
    assert StoppedError("", signal.SIGINT).exit_code == 130
    assert StoppedError("", signal.SIGTERM).exit_code == 143


def test_ctrl_c_outside_training_is_a_message_too(aegl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("aegl.tasks.val", interrupted)
    result = aegl("val")
    assert (result.exit_code, result.stderr, result.stdout) == (130, "aegl: interrupted\n", "")


def test_the_help_documents_the_exit_codes(aegl: Any) -> None:
    text = " ".join(aegl("--help").stdout.split())
    assert "128 + n: stopped by signal n (130: Ctrl-C)" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "the loss is not finite ("),
        (("loss_limit=0.1",), "is above loss_limit=0.1 on images"),
        (("nonfinite=skip", "max_skipped=2"), "; more than max_skipped=2 steps in a row"),
    ],
    ids=["stop", "limit", "skip"],
)
def test_a_run_that_explodes_ends_with_one_message(
    aegl: Any, tiny: tuple[str, ...], tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    settings = [word for word in tiny if not word.startswith("warmup")]
    hot = ("lr=1e12", "warmup_iterations=0", "log_every=1")
    result = aegl("train", *settings, *hot, *words, f"project={tmp_path}", "name=x")
    assert result.exit_code == 1
    message = result.stderr.splitlines()[-1]
    assert message.startswith("aegl: error: iteration ") and told in message
    assert not (tmp_path / "x" / "weights" / "last.pt").exists()
