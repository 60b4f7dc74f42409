"""What can befall a run, and what is left of it: kills at any moment, full disks, NaN, hangs."""

import itertools
import logging
import os
import random
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from aegl.engine import checkpoint as files
from aegl.engine.callbacks import Callback
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.distributed import join_world
from aegl.engine.signals import StoppedError
from aegl.errors import CheckpointError, RunError
from aegl.models.weights import read_tensors

STEPS = 30


# Kills


@pytest.fixture(scope="module")
def unbroken(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    toy.build(folder, iterations=STEPS, checkpoint_every=2).run()
    return folder


def go_on(toy: ModuleType, folder: Path) -> None:
    """Train to the end, from the checkpoint if there is one: any that is there is whole."""
    trainer = toy.build(folder, iterations=STEPS, checkpoint_every=2)
    if (folder / "last.pt").exists():
        trainer.resume(load_checkpoint(folder / "last.pt"))
    trainer.run()


@pytest.mark.parametrize("seed", range(20))
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(
    toy: ModuleType, unbroken: Path, tmp_path: Path, seed: int
) -> None:
    killed = toy.fork(go_on, toy, tmp_path)
    killed.join(random.Random(seed).uniform(0.01, 0.4))
    killed.kill()
    assert toy.exit_code(killed) in (-signal.SIGKILL, 0)  # a late one comes after the end
    for file in ("last.pt", "previous.pt"):
        if (tmp_path / file).exists():
            load_checkpoint(tmp_path / file)
    go_on(toy, tmp_path)
    assert toy.same(toy.state(tmp_path), toy.state(unbroken))


MOMENTS = ["torch.save", "seal", "os.fsync", "_keep", "Path.replace", "_sync_folder"]


def go_on_and_die(toy: ModuleType, folder: Path, moment: str, when: str, number: int) -> None:
    """Like :func:`go_on`, but SIGKILL before or after a step of writing the checkpoint of that number."""
    owner, _, name = f"files.{moment}".rpartition(".")
    target: Any = {"files": files, "files.torch": torch, "files.os": os, "files.Path": Path}[owner]
    real, calls = getattr(target, name), itertools.count(1)

    def fatal(*arguments: Any, **options: Any) -> Any:
        is_it = next(calls) == number
        if is_it and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **options)
        if is_it:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(target, name, fatal)
    go_on(toy, folder)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_while_a_checkpoint_is_written(
    toy: ModuleType, unbroken: Path, tmp_path: Path, moment: str, when: str
) -> None:
    assert toy.exit_code(toy.fork(go_on_and_die, toy, tmp_path, moment, when, 5)) == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "last.pt").iteration < STEPS
    go_on(toy, tmp_path)
    assert toy.same(toy.state(tmp_path), toy.state(unbroken))
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "previous.pt", "best.pt"}


def test_previous_is_the_checkpoint_before(toy: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        toy.build(tmp_path, callbacks=[toy.KillAt(10, signal.SIGTERM)]).run()
    iterations = [load_checkpoint(tmp_path / file).iteration for file in ("last.pt", "previous.pt")]
    assert iterations == [10, 8]


def test_a_checkpoint_found_there_does_not_replace_the_previous_one(toy: ModuleType, tmp_path: Path) -> None:
    """It may be the damaged one that previous.pt stood in for."""
    toy.build(tmp_path).run()
    good = (tmp_path / "previous.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(b"damaged")
    resumed = toy.build(tmp_path, checkpoint_every=100, iterations=13)
    resumed.resume(load_checkpoint(tmp_path / "previous.pt"))
    resumed._save()
    resumed._saver.close()
    assert (tmp_path / "previous.pt").read_bytes() == good
    assert load_checkpoint(tmp_path / "last.pt").iteration == 12


def test_without_hard_links_the_file_is_renamed(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    toy.build(tmp_path).run()
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "previous.pt", "best.pt"}
    assert load_checkpoint(tmp_path / "previous.pt").training is not None


# Signals


def test_a_signal_in_an_evaluation_stops_at_once(toy: ModuleType, tmp_path: Path) -> None:
    def score(model: Any) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        return {}

    started = time.monotonic()
    with pytest.raises(StoppedError, match="while the model was evaluated after iteration 6; the state is saved") as it:
        toy.build(tmp_path, validate=score, val_every=6).run()
    assert it.value.exit_code == 143
    assert time.monotonic() - started < 10
    resumed = toy.build(tmp_path, validate=lambda model: {"box": {"AP": 0.5}, "mask": None}, val_every=6)
    resumed.resume(load_checkpoint(tmp_path / "last.pt"))
    assert resumed.iteration == 6
    assert resumed._val_due()


@pytest.fixture
def usual_sigint() -> Iterator[None]:
    """What a program at a terminal has; one that a script starts in the background ignores SIGINT."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("usual_sigint")
def test_a_second_signal_acts_as_usual_and_what_is_being_written_is_finished(toy: ModuleType, tmp_path: Path) -> None:
    twice = [toy.KillAt(5, signal.SIGINT), toy.KillAt(5, signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt):
        toy.build(tmp_path, callbacks=twice).run()
    assert load_checkpoint(tmp_path / "last.pt").iteration == 4


def stop_two(toy: ModuleType, folder: Path, rank: int, port: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ.update(MASTER_PORT=str(port))
    with join_world("cpu") as world:
        stop = [toy.KillAt(5, signal.SIGTERM)]
        trainer = toy.build(folder, world=world, callbacks=stop, iterations=10_000, log_every=10_000)
        try:
            trainer.run()
        except StoppedError as error:
            os._exit(error.exit_code if trainer.iteration < 9 else 1)


def test_processes_stop_together_without_waiting_for_a_log_record(toy: ModuleType, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [toy.fork(stop_two, toy, tmp_path, rank, port) for rank in range(2)]
    assert [toy.exit_code(rank) for rank in ranks] == [143, 143]
    assert load_checkpoint(tmp_path / "last.pt").iteration in (5, 6, 7)


# Disks


class SmallDisk(Callback):
    """Files of this process can hold no more than some bytes, from one step to another."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.saved: list[int] = []
        self.trainer: Any = None

    def on_step_end(self, iteration: int) -> None:
        if iteration in (self.first, self.last):
            self.trainer._saver.wait()  # whatever is being written meets the disk as it was
            most = 5000 if iteration == self.first else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def on_checkpoint(self, iteration: int, path: Path) -> None:
        self.saved.append(iteration)


def train_on_small_disk(toy: ModuleType, folder: Path, last: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    logging.getLogger("aegl").addHandler(logging.FileHandler(folder.parent / "log.txt"))
    disk = SmallDisk(6, last)
    try:
        disk.trainer = toy.build(folder, callbacks=[disk], iterations=20)
        disk.trainer.run()
    except RunError as error:
        (folder.parent / "error.txt").write_text(str(error))
        os._exit(error.exit_code)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    os._exit(0 if disk.saved == [4, 16, 20, 20] else 9)


def test_a_disk_that_is_full_for_a_while_costs_nothing(toy: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    assert toy.exit_code(toy.fork(train_on_small_disk, toy, folder, 14)) == 0
    assert load_checkpoint(folder / "last.pt").iteration == 20
    warning, *_ = (tmp_path / "log.txt").read_text().splitlines()
    assert warning.startswith(f"{folder / 'last.pt'}: cannot write the checkpoint (File too large; ")
    assert " MiB free); the older file there is untouched. Training goes on" in warning
    assert {path.name for path in folder.iterdir()} == {"last.pt", "previous.pt", "best.pt"}
    unbroken = tmp_path / "unbroken"
    toy.build(unbroken, iterations=20).run()
    assert toy.same(toy.state(folder), toy.state(unbroken))


def test_a_last_checkpoint_that_cannot_be_written_fails_the_run(toy: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    assert toy.exit_code(toy.fork(train_on_small_disk, toy, folder, 999)) == 1
    assert "cannot write the checkpoint" in (tmp_path / "error.txt").read_text()
    assert load_checkpoint(folder / "last.pt").iteration == 4


def test_best_weights_that_could_not_be_written_are_kept_and_written_later(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, scores = files.save_checkpoint, iter([0.5, 0.4])

    def save(checkpoint: Any, path: Path, **options: Any) -> None:
        if path.name == "best.pt" and trainer.iteration < 8:
            raise RunError(f"{path}: full")
        real(checkpoint, path, **options)

    monkeypatch.setattr("aegl.engine.weights.save_checkpoint", save)
    trainer = toy.build(tmp_path, validate=lambda model: {"box": {"AP": next(scores)}, "mask": None}, val_every=6)
    trainer.run()
    assert load_checkpoint(tmp_path / "best.pt").iteration == 6
    assert load_checkpoint(tmp_path / "last.pt").training.best == 0.5  # type: ignore[union-attr]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(toy: ModuleType, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="Permission denied"):
        toy.build(tmp_path / "weights").run()


def test_a_slow_disk_does_not_hold_up_training(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.save_checkpoint

    def save(*arguments: Any, **options: Any) -> None:
        time.sleep(0.5)
        real(*arguments, **options)

    class Clock(Callback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, iteration: int) -> None:
            self.times.append(time.perf_counter())

    monkeypatch.setattr("aegl.engine.weights.save_checkpoint", save)
    clock = Clock()
    toy.build(tmp_path, callbacks=[clock]).run()
    assert clock.times[6] - clock.times[0] < 0.4  # step 4 is saved meanwhile; step 8 waits for that to be finished


# Files of others


def test_nothing_in_a_weights_file_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "touched",)

    for name, content in (("a.pth", {"w": torch.zeros(1), "x": Evil()}), ("b.pth", Evil())):
        torch.save(content, tmp_path / name)
        with pytest.raises(CheckpointError, match="cannot be read as weights"):
            read_tensors(tmp_path / name)
    (tmp_path / "c.safetensors").write_bytes((tmp_path / "a.pth").read_bytes())
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_tensors(tmp_path / "c.safetensors")
    assert not (tmp_path / "touched").exists()
