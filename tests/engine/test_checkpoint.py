"""Checkpoint files: exact, safe to load, whole or not there, and every wrong file told apart."""

import json
import multiprocessing
import resource
import signal
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from aegl.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from aegl.errors import CheckpointError, RunError


@pytest.fixture
def checkpoint(toy: ModuleType) -> Checkpoint:
    weights = {"w": torch.arange(4.0), "count": torch.tensor(3)}
    return Checkpoint(weights, toy.META, toy.STATISTICS, {"lr": 0.1, "names": ["a"]}, 7, {"mask": {"AP": None}})


def test_round_trip(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "weights" / "last.pt"
    save_checkpoint(checkpoint, path)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.model["w"], checkpoint.model["w"])
    assert loaded.meta == checkpoint.meta
    assert np.array_equal(loaded.statistics.instance_counts, checkpoint.statistics.instance_counts)
    assert (loaded.config, loaded.metrics, loaded.training) == (checkpoint.config, checkpoint.metrics, None)
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


def _save_with_little_space(checkpoint: Checkpoint, path: Path, outcome: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
    try:
        save_checkpoint(checkpoint, path)
    except RunError as error:
        outcome.write_text(json.dumps(str(error)))


def test_full_disk_keeps_the_old_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path, outcome = tmp_path / "weights" / "last.pt", tmp_path / "outcome.json"
    save_checkpoint(checkpoint, path)
    before = path.read_bytes()
    arguments = (checkpoint, path, outcome)
    process = multiprocessing.get_context("fork").Process(target=_save_with_little_space, args=arguments)
    process.start()
    process.join(30)
    message = json.loads(outcome.read_text())
    assert str(path) in message and "untouched" in message
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


def test_unwritable_place(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the checkpoint"):
        save_checkpoint(checkpoint, tmp_path / "file" / "last.pt")


def _flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(b ^ 255 for b in data[len(data) // 2 :])


def test_damaged_files(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(checkpoint, path)
    good = path.read_bytes()
    for data in (b"", b"hello", good[: len(good) // 2], good[:-40], _flipped(good), json.dumps({"a": 1}).encode()):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"last\.pt: not a readable PyTorch checkpoint"):
            load_checkpoint(path)


def test_alien_files(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path)
    for alien in ({"conv.weight": torch.zeros(1)}, torch.zeros(2), [1, 2]):
        torch.save(alien, path)
        with pytest.raises(CheckpointError, match="no checkpoint of aegl; weights of a backbone"):
            load_checkpoint(path)
    torch.save({"format": "aegl-checkpoint", "format_version": 99, "aegl_version": "9.9"}, path)
    with pytest.raises(CheckpointError, match=r"written by aegl 9\.9.*update aegl"):
        load_checkpoint(path)
    torch.save({"format": "aegl-checkpoint", "format_version": 1, "model": {}}, path)
    with pytest.raises(CheckpointError, match="lacks meta, statistics"):
        load_checkpoint(path)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "touched",)  # type: ignore[return-value]

    torch.save({"format": "aegl-checkpoint", "x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "touched").exists()
