"""Commands that are killed without warning, or find their files damaged, and are called again."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from aegl.engine.checkpoint import load_checkpoint

TOTAL = 16
LONG = (f"iterations={TOTAL}", "checkpoint_every=2", "log_every=1", "val_every=8", "ema=true")


def arguments(tiny: tuple[str, ...], project: Path) -> list[str]:
    settings = [word for word in tiny if not word.startswith("iterations=")]
    return ["train", *settings, *LONG, f"project={project}", "name=x"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "weights" / "last.pt").model


def same(left: Path, right: Path) -> bool:
    """Whether two runs ended with the same bits."""
    one, other = weights(left), weights(right)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def unbroken(aegl: Any, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("unbroken")
    result = aegl(*arguments(tiny, project))
    assert result.exit_code == 0, result.stderr
    return project / "x"


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.slow
def test_a_command_killed_again_and_again_ends_with_the_same_weights(
    start_aegl: Any, aegl: Any, tiny: tuple[str, ...], unbroken: Path, tmp_path: Path
) -> None:
    moments, run = random.Random(0), tmp_path / "x"
    command = arguments(tiny, tmp_path)
    for _ in range(2):
        before = (run / "weights" / "last.pt").stat().st_mtime_ns if command[1] == "resume=true" else 0
        process = start_aegl(*command)
        wait_for(run / "weights" / "last.pt", process)
        while (run / "weights" / "last.pt").stat().st_mtime_ns == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        load_checkpoint(run / "weights" / "last.pt")
        command = ["train", "resume=true", "name=x", f"project={tmp_path}"]
        if (run / "train.json").exists():
            break
    if not (run / "train.json").exists():
        result = aegl(*command)
        assert result.exit_code == 0, result.stderr
    assert same(run, unbroken)


@pytest.fixture
def broken(unbroken: Path, tmp_path: Path) -> Path:
    """A run that was killed after its last checkpoint, which a flipped bit has damaged since."""
    run = tmp_path / "x"
    shutil.copytree(unbroken, run)
    (run / "train.json").unlink()
    last = run / "weights" / "last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 4
    last.write_bytes(content)
    return run


def test_a_damaged_checkpoint_gives_way_to_the_one_before(aegl: Any, unbroken: Path, broken: Path) -> None:
    result = aegl("train", "resume=true", "name=x", f"project={broken.parent}")
    assert result.exit_code == 0, result.stderr
    assert f"GOING ON FROM {broken / 'weights' / 'previous.pt'}, after step {TOTAL} of {TOTAL}" in result.stderr
    assert same(broken, unbroken)


def test_a_damaged_model_is_not_used(aegl: Any, refused: Any, broken: Path) -> None:
    """Other verbs do not choose another file than the one that was named."""
    last = broken / "weights" / "last.pt"
    refused(aegl("val", f"weights={last}"), f"{last}: its checksum does not fit")


def test_a_new_run_in_the_folder_of_an_old_one_forgets_it(
    aegl: Any, tiny: tuple[str, ...], unbroken: Path, tmp_path: Path
) -> None:
    shutil.copytree(unbroken, tmp_path / "x")
    result = aegl("train", *tiny, f"project={tmp_path}", "name=x", "exist_ok=true")
    assert result.exit_code == 0, result.stderr
    assert [load_checkpoint(tmp_path / "x" / "weights" / f"{name}.pt").iteration for name in ("last", "previous")] == [
        6,
        6,
    ]
