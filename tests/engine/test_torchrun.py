"""Several processes, started as torchrun starts them: one result, said once."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aegl.config import load_config
from aegl.engine.build import train
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.distributed import join_world
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
    written = sorted(p.name for p in (tmp_path / "runs" / "val").iterdir())
    assert written == ["metrics.json", "per_class.csv", "pr_curves.npz", "predictions.json"]


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
