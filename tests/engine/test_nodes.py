"""Two machines as one run, with torchrun between them: no common folder, one process killed, the bits of one machine.

The machines are two network namespaces joined by a cable of their own, which only root may make.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aegl.engine.checkpoint import Checkpoint, load_checkpoint

KEYS = (
    "train", "data=shapes_lt", "shapes.classes=6", "shapes.max_instances=12", "shapes.imbalance=6",
    "shapes.val_per_class=2", "model=mini", "method=fbs_aegl", "sampler=rfs", "rfs_threshold=0.5", "iterations=24",
    "batch=4", "workers=0", "device=cpu", "warmup_iterations=2", "checkpoint_every=4", "log_every=2", "ema=true",
    "report=false", "project=runs", "name=x", "resume=auto",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """Where a torchrun is started: address, network interface, and what enters its network."""

    address: str
    interface: str
    enter: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    names = [f"aegl-{os.getpid()}-{side}" for side in "ab"]
    addresses = ["10.77.0.1", "10.77.0.2"]
    commands = [f"netns add {name}" for name in names]
    commands += [f"link add v0 netns {names[0]} type veth peer name v1 netns {names[1]}"]
    for number, (name, address) in enumerate(zip(names, addresses, strict=True)):
        commands += [f"-n {name} addr add {address}/24 dev v{number}", f"-n {name} link set v{number} up"]
        commands += [f"-n {name} link set lo up"]
    try:
        if not (shutil.which("ip") and all(_ip(command) for command in commands)):
            pytest.skip("network namespaces cannot be made here: that takes root and iproute2")
        yield [
            Machine(address, f"v{number}", ("ip", "netns", "exec", name))
            for number, (name, address) in enumerate(zip(names, addresses, strict=True))
        ]
    finally:
        if shutil.which("ip"):
            for name in names:
                _ip(f"netns del {name}")


def _ip(command: str) -> bool:
    return subprocess.run(["ip", *command.split()], capture_output=True, check=False).returncode == 0


def torchrun(folder: Path, *options: str, machine: Machine | None = None) -> subprocess.Popen[str]:
    """Start it in ``folder``, which holds its runs and its cache."""
    folder.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "AEGL_CACHE": str(folder / "cache")}
    if machine:
        environment["GLOO_SOCKET_IFNAME"] = machine.interface
    words = [*(machine.enter if machine else ()), sys.executable, "-m", "torch.distributed.run", *options]
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(
            [*words, "--module", "aegl_cli", *KEYS], stdout=out, stderr=err, text=True, env=environment, cwd=folder
        )


def last(folder: Path) -> Checkpoint:
    return load_checkpoint(folder / "runs" / "x" / "weights" / "last.pt")


def workers(agent: int) -> list[int]:
    """Processes that a torchrun has started, directly or through ``ip``."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return [int(child) for child in children]


def kill_worker_after_first_checkpoint(process: subprocess.Popen[str], folder: Path) -> None:
    """SIGKILL the worker of a torchrun once the run in ``folder`` has a checkpoint."""
    deadline = time.monotonic() + 120
    while not (folder / "runs" / "x" / "weights" / "last.pt").is_file():
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.05)
    os.kill(workers(process.pid)[0], signal.SIGKILL)


@pytest.mark.slow
def test_two_machines_one_of_which_loses_its_process_end_with_the_bits_of_one(
    machines: list[Machine], tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = [tmp_path / "a", tmp_path / "b"]
    started = []
    for number, (folder, machine) in enumerate(zip(folders, machines, strict=True)):
        options = (
            "--nnodes=2 --nproc-per-node=1 --max-restarts=3 --rdzv-backend=c10d --rdzv-id=test "
            f"--rdzv-endpoint={machines[0].address}:{port} --local-addr={machine.address} "
            f"--rdzv-conf=is_host={1 - number},join_timeout=100"
        )
        started.append(torchrun(folder, *options.split(), machine=machine))
    kill_worker_after_first_checkpoint(started[1], folders[0])
    codes = [process.wait(240) for process in started]
    logs = [(folder / "err").read_text() for folder in folders]
    assert codes == [0, 0], "\n".join(logs)
    assert "resuming runs/x after step" in logs[0]
    assert not (folders[1] / "runs").exists()  # nothing of the run is written there, and nothing was needed

    whole = tmp_path / "whole"
    alone = torchrun(whole, "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0")
    assert alone.wait(240) == 0, (whole / "err").read_text()
    assert "resuming" not in (whole / "err").read_text()
    ours, theirs = last(folders[0]), last(whole)
    assert ours.iteration == theirs.iteration == 24
    assert all(tensor.equal(theirs.model[name]) for name, tensor in ours.model.items())
    assert ours.metrics == theirs.metrics
