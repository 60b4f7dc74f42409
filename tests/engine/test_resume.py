"""A run that is stopped in any way and resumed ends with the same bits as one that never stopped."""

import signal
import socket
from pathlib import Path
from types import ModuleType

import pytest
import torch

from aegl.config import Config, load_config, to_yaml
from aegl.engine.checkpoint import DamagedCheckpointError, load_checkpoint
from aegl.engine.resume import open_run
from aegl.errors import CheckpointError, RunError


@pytest.fixture(scope="module")
def unbroken(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    toy.build(folder).run()
    return folder


def test_killed_run_resumes_bit_for_bit(toy: ModuleType, unbroken: Path, tmp_path: Path) -> None:
    assert toy.exit_code(toy.fork(toy.run_process, tmp_path, 6)) == -signal.SIGKILL
    killed = load_checkpoint(tmp_path / "last.pt")
    assert killed.training is not None
    assert (killed.iteration, killed.training.consumed_batches) == (4, 8)
    assert toy.exit_code(toy.fork(toy.run_process, tmp_path, -1)) == 0
    assert toy.same(toy.state(tmp_path), toy.state(unbroken))


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
    assert toy.same(toy.state(tmp_path), toy.state(unbroken))


def test_resume_without_rng_would_differ(toy: ModuleType, unbroken: Path, tmp_path: Path) -> None:
    """The comparison above can fail: dropout makes the end depend on the generator's state."""
    with pytest.raises(RunError):
        toy.build(tmp_path, callbacks=[toy.KillAt(7, signal.SIGINT)]).run()
    resumed = toy.build(tmp_path)
    resumed.resume(load_checkpoint(tmp_path / "last.pt"))
    torch.manual_seed(99)
    resumed.run()
    assert not toy.same(toy.state(tmp_path)[0], toy.state(unbroken)[0])


def test_finished_run_does_nothing_more(toy: ModuleType, unbroken: Path, tmp_path: Path) -> None:
    again = toy.build(tmp_path)
    again.resume(load_checkpoint(unbroken / "last.pt"))
    assert again.run().iterations == 12
    assert not (tmp_path / "last.pt").exists()


def test_best_holds_no_training_state(toy: ModuleType, unbroken: Path, tmp_path: Path) -> None:
    best, last = load_checkpoint(unbroken / "best.pt"), load_checkpoint(unbroken / "last.pt")
    assert toy.same(best.model, last.inference_weights())
    assert not toy.same(best.model, last.model)
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        toy.build(tmp_path).resume(best)


def test_two_processes_end_with_the_same_weights(toy: ModuleType, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [toy.fork(toy.run_process, tmp_path, -1, rank, 2, port) for rank in range(2)]
    assert [toy.exit_code(rank) for rank in ranks] == [0, 0]
    weights = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    parameters = dict(toy.ToyModel(toy.ToyLoss()).named_parameters())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in [*parameters, "body.1.running_mean"])
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint.training is not None
    assert len(checkpoint.training.rng) == 2
    assert not torch.equal(checkpoint.training.rng[0]["torch"], checkpoint.training.rng[1]["torch"])


@pytest.fixture
def run(toy: ModuleType, tmp_path: Path) -> Path:
    """Folder of a run that was stopped after step 7, with checkpoints of the steps 7 and 4."""
    (tmp_path / "args.yaml").write_text(to_yaml(load_config({"data": "shapes_lt"})))
    (tmp_path / "results.csv").write_text("iteration,loss\n3,1.0\n6,0.5\n")
    with pytest.raises(RunError):
        toy.build(tmp_path / "weights", callbacks=[toy.KillAt(7, signal.SIGTERM)]).run()
    return tmp_path


def opened(run: Path, weights: Path | None = None) -> int:
    _, checkpoint, _ = open_run(run, Config(weights=None if weights is None else str(weights)))
    assert checkpoint is not None
    return checkpoint.iteration


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_and_says_so(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last, previous = run / "weights" / "last.pt", run / "weights" / "previous.pt"
    assert opened(run) == 7
    assert not caplog.records[:-1]
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    last.write_bytes(damaged)
    assert opened(run) == 4
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"{last}: its checksum does not fit" in warning
    assert f"GOING ON FROM {previous}, after step 4 of 6 that are logged; the steps since then are lost" in warning
    previous.write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match=r"(?s)last\.pt: its checksum.*previous\.pt: not a.*is whole"):
        opened(run)


def test_a_missing_last_checkpoint_gives_way_too(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where there are no hard links, a kill can come between the two renames."""
    (run / "weights" / "last.pt").unlink()
    assert opened(run) == 4
    assert any("last.pt: is missing\nGOING ON FROM" in record.getMessage() for record in caplog.records)


def test_the_checkpoint_before_can_be_asked_for(run: Path) -> None:
    assert opened(run, run / "weights" / "previous.pt") == 4
    assert opened(run, run / "weights" / "best.pt") == 7


def test_a_newer_checkpoint_is_no_damage(run: Path) -> None:
    torch.save({"format": "aegl-checkpoint", "format_version": 99, "aegl_version": "9.9"}, run / "weights" / "last.pt")
    with pytest.raises(CheckpointError, match="update aegl"):
        opened(run)
