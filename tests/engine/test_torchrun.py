"""Several processes, started as torchrun starts them: one result, said once."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aegl.config import Config, load_config
from aegl.engine.beginning import find_beginning
from aegl.engine.build import train
from aegl.engine.callbacks import Callback
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.distributed import join_world
from aegl.engine.nodes import shared_folder
from aegl.errors import AeglError, ConfigError
from aegl.progress import SilentProgress
from aegl.tasks import open_source
from aegl_cli.main import cli

DATA = ("data=shapes_lt", "shapes.classes=6", "shapes.max_instances=12", "shapes.imbalance=6", "shapes.val_per_class=2")
TRAIN = (
    "train", *DATA, "model=mini", "method=fbs_aegl", "sampler=rfs", "rfs_threshold=0.5", "iterations=6", "batch=4",
    "workers=0", "device=cpu", "warmup_iterations=2", "checkpoint_every=2", "log_every=2", "ema=true",
)  # fmt: skip
TORCHRUN = (
    "-m torch.distributed.run --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:0 --module aegl_cli"
)


def in_two_processes(body: Callable[[], int], folder: Path) -> list[tuple[int | None, str, str]]:
    """Fork two processes, with torchrun's environment, that run ``body``: exit code, output and errors of each.

    They need not import torch again, which takes most of the time of a process of its own.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        sys.stdout = (folder / f"{rank}.out").open("w")
        sys.stderr = (folder / f"{rank}.err").open("w")
        code = body()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    ranks = [multiprocessing.get_context("fork").Process(target=run, args=(rank,)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    outputs = [[(folder / f"{rank}.{kind}").read_text() for kind in ("out", "err")] for rank in range(2)]
    return [(process.exitcode, out, err) for process, (out, err) in zip(ranks, outputs, strict=True)]


def command(*words: object) -> Callable[[], int]:
    """A command line as the body of a process."""

    def run() -> int:
        try:
            cli([str(word) for word in words])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run


@pytest.mark.slow
def test_torchrun_trains_one_model_and_says_so_once(tmp_path: Path) -> None:
    words = [sys.executable, *TORCHRUN.split(), *TRAIN, f"project={tmp_path}", "name=x", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # one object, hence of one process
    assert (result["iterations"], result["run"]) == (6, str(tmp_path / "x"))
    assert result["metrics"]["mask"]["AP"] is not None
    assert done.stderr.count("train 6/6 steps") == 1
    assert done.stderr.count("epoch 0:") == 1
    assert "no longer hold the same weights" not in done.stderr  # checked at every checkpoint, see below
    assert "Warning" not in done.stderr
    checkpoint = load_checkpoint(result["last"])
    assert checkpoint.training is not None and len(checkpoint.training.rng) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    steps = [line.split(",")[0] for line in (tmp_path / "x" / "results.csv").read_text().splitlines()]
    assert steps == ["iteration", "2", "4", "6", "6"]


@pytest.mark.parametrize("drift", [0.0, 1e-6])
def test_processes_whose_weights_drift_apart_are_found_out(toy: ModuleType, tmp_path: Path, drift: float) -> None:
    def run() -> int:
        logging.getLogger("aegl").addHandler(logging.StreamHandler(sys.stderr))
        with join_world("cpu") as world:
            trainer = toy.build(tmp_path, world=world)
            if world.rank == 1:
                trainer._stepper.model.body[0].bias.data += drift
            trainer.run()
        return 0

    (code, _, log), (other, _, _) = in_two_processes(run, tmp_path)
    assert (code, other) == (0, 0)
    found = [line for line in log.splitlines() if "no longer hold the same weights" in line]
    assert bool(found) == (drift > 0)
    assert all(line.startswith("step ") for line in found)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    keys = dict(word.split("=") for word in TRAIN[1:])
    return train(load_config({**keys, "project": tmp_path_factory.mktemp("runs")}), SilentProgress())


def test_val_in_two_processes_gives_the_figures_of_one(trained: dict[str, Any], tmp_path: Path) -> None:
    words = ("val", f"weights={trained['best']}", "workers=0", "device=cpu", f"project={tmp_path / 'runs'}", "--json")
    (code, out, err), (other, other_out, other_err) = in_two_processes(command(*words), tmp_path)
    assert (code, other) == (0, 0), err + other_err
    result = json.loads(out)
    assert {kind: result[kind] for kind in ("box", "mask")} == {k: trained["metrics"][k] for k in ("box", "mask")}
    assert (other_out, other_err) == ("", "")
    written = {path.name for path in (tmp_path / "runs" / "val").iterdir()}
    assert {"metrics.json", "per_class.csv", "pr_curves.npz", "predictions.json"} <= written
    assert "detections" not in written  # of the single processes


def test_a_killed_process_ends_the_other_one_at_once_and_with_one_message(tmp_path: Path) -> None:
    class Kill(Callback):
        def on_step_end(self, iteration: int) -> None:
            if iteration == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    def run() -> int:
        keys = dict(word.split("=") for word in TRAIN[1:])
        try:
            train(load_config({**keys, "project": tmp_path / "runs"}), SilentProgress(), (Kill(),))
        except AeglError as error:  # the main process's callbacks are called, so that is the one that is killed
            sys.stderr.write(f"{time.monotonic()} {error}\n")
            return error.exit_code
        return 0

    (killed, _, _), (code, _, err) = in_two_processes(run, tmp_path)
    assert (killed, code) == (-signal.SIGKILL, 1)
    assert "lost the other processes" in err
    assert len(err.splitlines()) == 1
    assert time.monotonic() - float(err.split()[0]) < 60  # in_two_processes would have waited for twice as long


def test_what_the_main_process_finds_wrong_is_raised_by_all(tmp_path: Path) -> None:
    """A folder that only the main one sees: the others wait for nothing, and say the same."""

    def run() -> int:
        with join_world("cpu") as world:
            config = Config(project=str(tmp_path / f"of{world.rank}"), name="x", data="d")
            if world.is_main:
                (tmp_path / "of0" / "x").mkdir(parents=True)
            try:
                find_beginning(config, world, {})
            except ConfigError as error:
                sys.stdout.write(f"{error}\n")
                return error.exit_code
        return 0

    ends = in_two_processes(run, tmp_path)
    assert [code for code, _, _ in ends] == [2, 2]
    assert all("exists already" in out for _, out, _ in ends)


def test_a_run_does_not_start_anew_where_another_machine_has_begun_it(tmp_path: Path) -> None:
    def run() -> int:
        with join_world("cpu") as world:
            config = Config(project=str(tmp_path / f"of{world.rank}"), name="x", data="d", resume="auto")
            if world.rank == 1:
                weights = tmp_path / "of1" / "x" / "weights"
                weights.mkdir(parents=True)
                (weights.parent / "args.yaml").touch()
                (weights / "last.pt").touch()
            try:
                find_beginning(config, world, {})
            except ConfigError as error:
                sys.stdout.write(f"{error}\n")
                return error.exit_code
        return 0

    ends = in_two_processes(run, tmp_path)
    assert [code for code, _, _ in ends] == [2, 2]
    assert "has begun on the machine of process 1" in ends[0][1]


@pytest.mark.parametrize("shared", [True, False])
def test_files_of_all_processes_reach_the_main_one(tmp_path: Path, shared: bool) -> None:
    """Also where the others do not see its folder, but one of the same name."""

    def run() -> int:
        with join_world("cpu") as world:
            folder = tmp_path / ("common" if shared else f"of{world.rank}") / "files"
            folder.mkdir(parents=True, exist_ok=True)
            world.barrier()
            with shared_folder(folder, world) as own:
                (own / f"{world.rank}.empty").touch()
                (own / f"{world.rank}.full").write_bytes(bytes([world.rank]) * 1000)
            world.barrier()
            found = sorted((path.name, path.stat().st_size) for path in folder.iterdir())
            sys.stdout.write(f"{own == folder} {found}")
        return 0

    (code, main, err), (other, out, other_err) = in_two_processes(run, tmp_path)
    assert (code, other) == (0, 0), err + other_err
    everything = [("0.empty", 0), ("0.full", 1000), ("1.empty", 0), ("1.full", 1000)]
    assert main.strip() == f"True {everything}"
    assert out.strip() == (f"True {everything}" if shared else "False []")


def test_what_breaks_one_process_is_said_without_tracebacks(tmp_path: Path) -> None:
    """The process that cannot read an image names it; the other one says that it was left alone."""
    keys = dict(word.split("=") for word in TRAIN[1:])
    image = open_source(load_config(keys)).open("train").image_path(3)
    data = tmp_path / "data"
    shutil.copytree(image.parents[2], data)
    broken = data / image.relative_to(image.parents[2])
    broken.write_bytes(broken.read_bytes()[:300])
    words = [word for word in TRAIN if not word.startswith(("data=", "sampler=", "rfs_"))]  # then it is drawn by one
    ends = in_two_processes(command(*words, f"data={data}", f"project={tmp_path / 'runs'}"), tmp_path)
    codes, errors = [code for code, _, _ in ends], [err for _, _, err in ends]
    assert sorted(code or 0 for code in codes) == [1, 2], errors
    assert f"image {broken}" in errors[codes.index(2)]
    assert "lost the other processes" in errors[codes.index(1)]
    assert not any("Traceback" in err for err in errors)
