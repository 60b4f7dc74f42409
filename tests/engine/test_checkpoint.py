"""Checkpoint files: exact, safe to load, whole or not there, and every wrong file told apart."""

import errno
import json
import multiprocessing
import resource
import signal
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.engine.checkpoint import (
    Checkpoint,
    DamagedCheckpointError,
    load_checkpoint,
    save_checkpoint,
    snapshot,
)
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
        with pytest.raises(CheckpointError, match=r"last\.pt: (not a readable PyTorch checkpoint|its checksum)"):
            load_checkpoint(path)


@pytest.fixture(scope="module")
def written(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    toy.build(folder).run()
    return folder / "last.pt"


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_found_wherever_it_is(written: Path, data: st.DataObject) -> None:
    """PyTorch alone reads on when a bit of a tensor is flipped."""
    good = written.read_bytes()
    comment_length = len(good) - 76 - 2  # where a zip archive says how long its comment, our seal, is
    position = data.draw(st.integers(0, len(good) - 1).filter(lambda at: not 0 <= at - comment_length < 2))
    bad = bytearray(good)
    bad[position] ^= 1 << data.draw(st.integers(0, 7))
    path = written.with_name("flipped.pt")
    path.write_bytes(bad)
    with pytest.raises(DamagedCheckpointError, match=r"flipped\.pt: (its checksum|not a readable)"):
        load_checkpoint(path)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_file_cut_short_is_found_wherever_it_ends(written: Path, data: st.DataObject) -> None:
    good = written.read_bytes()
    path = written.with_name("short.pt")
    path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    with pytest.raises(DamagedCheckpointError, match=r"short\.pt: (its checksum|not a readable)"):
        load_checkpoint(path)


def test_other_programs_still_read_it(written: Path) -> None:
    assert torch.load(written, weights_only=True)["iteration"] == 12
    with zipfile.ZipFile(written) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"aegl-sha256:")


def test_files_of_the_first_format_are_read_without_a_checksum(written: Path, tmp_path: Path) -> None:
    content = {**torch.load(written, weights_only=True), "format_version": 1}
    torch.save(content, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt").iteration == 12
    torch.save({**content, "format_version": 2}, tmp_path / "resaved.pt")
    with pytest.raises(DamagedCheckpointError, match="its checksum is missing"):
        load_checkpoint(tmp_path / "resaved.pt")


def test_the_former_file_is_kept_only_once_the_new_one_is_safe(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, former = tmp_path / "last.pt", tmp_path / "previous.pt"
    save_checkpoint(checkpoint, path, former=former)
    assert not former.exists()
    save_checkpoint(replace(checkpoint, iteration=8), path, former=former)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("aegl.engine.checkpoint.seal", fail)
    with pytest.raises(RunError, match=r"\(No space left on device; .* MiB free\); the older file there is untouched"):
        save_checkpoint(replace(checkpoint, iteration=9), path, former=former)
    assert [load_checkpoint(file).iteration for file in (path, former)] == [8, 7]


def test_a_snapshot_shares_nothing_and_keeps_everything() -> None:
    layer = torch.nn.BatchNorm1d(2)
    state = {"a": layer.state_dict(), "b": [torch.arange(3), (1, "x", None)], "view": torch.arange(9)[3:6]}
    copied = snapshot(state)
    layer.weight.data.fill_(7)
    assert copied["a"]["weight"].tolist() == [1.0, 1.0]
    assert copied["a"]._metadata == layer.state_dict()._metadata
    assert (copied["b"][0].tolist(), copied["b"][1]) == ([0, 1, 2], (1, "x", None))
    assert copied["view"].untyped_storage().nbytes() == 3 * 8


def test_alien_files(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "best.pt").touch()
    with pytest.raises(CheckpointError, match=r"is the folder of a run, whose weights are in .*best\.pt;"):
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
