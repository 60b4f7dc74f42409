"""`aegl compare` on real runs: what it prints, what a kill costs, and what one failure means."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from aegl.engine.checkpoint import load_checkpoint

TOTAL = 24
LONG = (f"iterations={TOTAL}", "checkpoint_every=3", "log_every=1")


@pytest.fixture
def asked(tiny: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    return ("compare", *tiny, "seeds=1", f"project={tmp_path}", "name=x")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "weights" / "last.pt").model


def test_a_comparison_prints_what_it_writes_and_does_not_train_twice(
    aegl: Any, asked: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*asked, "methods=softmax_ce,softmax_ce+loss=sigmoid_bce")
    first = aegl(*words)
    assert first.exit_code == 0, first.stderr
    report = (tmp_path / "x" / "compare.md").read_text()
    assert first.stdout.startswith(report)
    assert "run 2 of 2, softmax_ce+loss=sigmoid_bce, seed 0" in first.stderr
    assert first.stderr.count("train 6/6 steps") == 2
    second = aegl(*words, "--json")
    assert "train 6/6 steps" not in second.stderr
    content = json.loads(second.stdout)
    assert content["failed"] == []
    (table,) = content["tables"]
    for entry in table["entries"]:
        metrics = json.loads((tmp_path / "x" / entry["name"] / "seed0" / "metrics.json").read_text())
        for name, figure in entry["figures"].items():
            kind, _, key = name.partition("/")
            assert figure["mean"] == pytest.approx(100 * metrics[kind][key])
    assert any(figure["mean"] > 0 for entry in table["entries"] for figure in entry["figures"].values())


def test_a_failed_entry_is_reported_and_the_exit_code_says_so(
    aegl: Any, asked: tuple[str, ...], tmp_path: Path
) -> None:
    result = aegl(*asked, "methods=softmax_ce+lr=1e20,softmax_ce", "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert [run["entry"] for run in content["failed"]] == ["softmax_ce+lr=1e20"]
    assert [entry["name"] for entry in content["tables"][0]["entries"]] == ["softmax_ce"]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "x" / "softmax_ce+lr=1e20" / "seed0" / "error.txt").exists()


def test_a_wrong_request_is_one_message(aegl: Any, refused: Any, asked: tuple[str, ...]) -> None:
    refused(aegl(*asked, "methods=softmax_ce,softmax"), "softmax: method=softmax", "softmax_ce")
    refused(aegl(*asked), "methods, recipes, entries, runs: none is given")


def test_runs_of_train_are_collected(aegl: Any, trained: Path, tmp_path: Path) -> None:
    result = aegl("compare", f"runs={trained}", f"project={tmp_path}")
    assert result.exit_code == 0, result.stderr
    assert "| fbs_aegl |    1 |" in result.stdout
    assert (tmp_path / "compare" / "compare.csv").is_file()


@pytest.mark.slow
def test_a_killed_comparison_goes_on_where_it_stopped_and_ends_the_same(
    aegl: Any, start_aegl: Any, asked: tuple[str, ...], tmp_path: Path
) -> None:
    words = [word for word in asked if not word.startswith("iterations=")]
    words += [*LONG, "methods=softmax_ce,sigmoid_bce", "device=cpu"]
    process = start_aegl(*words)
    first, second = (tmp_path / "x" / name / "seed0" for name in ("softmax_ce", "sigmoid_bce"))
    _wait_for(second / "results.csv", 8, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert (first / "train.json").is_file() and not (second / "train.json").exists()
    killed_at, untouched = load_checkpoint(second / "weights" / "last.pt").iteration, first.stat().st_mtime_ns
    assert 0 < killed_at < TOTAL
    result = aegl(*words)
    assert result.exit_code == 0, result.stderr
    assert f"resuming {second} after step {killed_at}" in result.stderr
    assert "run 2 of 2, sigmoid_bce, seed 0, goes on" in result.stderr
    assert first.stat().st_mtime_ns == untouched
    again = aegl("train", f"cfg={second / 'args.yaml'}", f"project={tmp_path}", "name=unbroken", "exist_ok=false")
    assert again.exit_code == 0, again.stderr
    resumed, unbroken = weights(second), weights(tmp_path / "unbroken")
    assert all(torch.equal(resumed[key], unbroken[key]) for key in unbroken)


def _wait_for(file: Path, rows: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not (file.is_file() and len(file.read_text().splitlines()) > rows):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
