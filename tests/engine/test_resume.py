"""A run that is stopped in any way and resumed ends with the same bits as one that never stopped."""

import multiprocessing
import signal
import socket
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from aegl.engine.checkpoint import load_checkpoint
from aegl.errors import CheckpointError, RunError


def same(left: Any, right: Any) -> bool:
    """Equal in every bit, through nested containers."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def state(folder: Path) -> tuple[Any, Any]:
    checkpoint = load_checkpoint(folder / "last.pt")
    return checkpoint.model, vars(checkpoint.training)


@pytest.fixture(scope="module")
def unbroken(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    toy.build(folder).run()
    return folder


def start(toy: ModuleType, *arguments: Any) -> BaseProcess:
    """A forked process, which need not import torch again."""
    process = multiprocessing.get_context("fork").Process(target=toy.run_process, args=arguments)
    process.start()
    return process


def exit_code(process: BaseProcess) -> int | None:
    process.join(60)
    return process.exitcode


def test_killed_run_resumes_bit_for_bit(toy: ModuleType, unbroken: Path, tmp_path: Path) -> None:
    assert exit_code(start(toy, tmp_path, 6)) == -signal.SIGKILL
    killed = load_checkpoint(tmp_path / "last.pt")
    assert killed.training is not None
    assert (killed.iteration, killed.training.consumed_batches) == (4, 8)
    assert exit_code(start(toy, tmp_path, -1)) == 0
    assert same(state(tmp_path), state(unbroken))


def test_signal_saves_then_stops(toy: ModuleType, unbroken: Path, tmp_path: Path) -> None:
    stopping = toy.build(tmp_path, callbacks=[toy.KillAt(7, signal.SIGTERM)])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RunError, match="SIGTERM after iteration 7 of 12"):
        stopping.run()
    assert signal.getsignal(signal.SIGTERM) is handler
    resumed = toy.build(tmp_path)
    resumed.resume(load_checkpoint(tmp_path / "last.pt"))
    assert resumed.iteration == 7
    resumed.run()
    assert same(state(tmp_path), state(unbroken))


def test_resume_without_rng_would_differ(toy: ModuleType, unbroken: Path, tmp_path: Path) -> None:
    """The comparison above can fail: dropout makes the end depend on the generator's state."""
    with pytest.raises(RunError):
        toy.build(tmp_path, callbacks=[toy.KillAt(7, signal.SIGINT)]).run()
    resumed = toy.build(tmp_path)
    resumed.resume(load_checkpoint(tmp_path / "last.pt"))
    torch.manual_seed(99)
    resumed.run()
    assert not same(state(tmp_path)[0], state(unbroken)[0])


def test_finished_run_does_nothing_more(toy: ModuleType, unbroken: Path, tmp_path: Path) -> None:
    again = toy.build(tmp_path)
    again.resume(load_checkpoint(unbroken / "last.pt"))
    assert again.run().iterations == 12
    assert not (tmp_path / "last.pt").exists()


def test_best_holds_no_training_state(toy: ModuleType, unbroken: Path, tmp_path: Path) -> None:
    best, last = load_checkpoint(unbroken / "best.pt"), load_checkpoint(unbroken / "last.pt")
    assert same(best.model, last.inference_weights())
    assert not same(best.model, last.model)
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        toy.build(tmp_path).resume(best)


def test_two_processes_end_with_the_same_weights(toy: ModuleType, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [start(toy, tmp_path, -1, rank, 2, port) for rank in range(2)]
    assert [exit_code(rank) for rank in ranks] == [0, 0]
    weights = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    parameters = dict(toy.ToyModel(toy.ToyLoss()).named_parameters())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in [*parameters, "body.1.running_mean"])
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint.training is not None
    assert len(checkpoint.training.rng) == 2
    assert not torch.equal(checkpoint.training.rng[0]["torch"], checkpoint.training.rng[1]["torch"])
