"""Two processes of N rows against one of 2N, over a real gloo process group."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from aegl.longtail.losses.fbs_aegl import FbsAegl

WORLD = 2
WORKER = """
import sys
import numpy as np, torch, torch.distributed as dist
from aegl.longtail.losses.fbs_aegl import FbsAegl
from aegl.longtail.statistics import ClassStatistics

folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
data = np.load(f"{folder}/in.npz")
stats = ClassStatistics(data["counts"], data["counts"], int(data["counts"].sum()), data["bands"])
logits, labels, uniform = (torch.from_numpy(np.split(data[k], world)[rank]) for k in ("logits", "labels", "uniform"))
grads = {}
for scope in ("local", "global"):
    leaf = logits.clone().requires_grad_()
    FbsAegl(stats, sigma_scope=scope, mu=0.1)(leaf, labels, draws={"uniform": uniform})["cls"].backward()
    grads[scope] = leaf.grad.numpy()
np.savez(f"{folder}/out{rank}.npz", **grads)
dist.destroy_process_group()
"""


@pytest.fixture
def two_process_gradients(tmp_path, stats, batch):
    # Put the foreground of one kind on each rank, so that the local ratios differ from the global one.
    order = batch.labels.argsort(stable=True)
    logits, labels, uniform = batch.logits[order], batch.labels[order], batch.uniform[order]
    interleaved = torch.cat([torch.arange(0, 10), torch.arange(20, 30), torch.arange(10, 20), torch.arange(30, 40)])
    logits, labels, uniform = logits[interleaved], labels[interleaved], uniform[interleaved]
    np.savez(
        tmp_path / "in.npz",
        logits=logits,
        labels=labels,
        uniform=uniform,
        counts=stats.instance_counts,
        bands=stats.class_band,
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(rank), str(WORLD)]) for rank in range(WORLD)
    ]
    assert [worker.wait(timeout=100) for worker in workers] == [0] * WORLD
    parts = [np.load(tmp_path / f"out{rank}.npz") for rank in range(WORLD)]
    # Each process divides by its own N; averaging over processes, as DDP does, divides by their number.
    averaged = {scope: torch.from_numpy(np.concatenate([part[scope] for part in parts]) / WORLD) for scope in parts[0]}
    return averaged, logits, labels, uniform


def test_global_sigma_makes_two_processes_equal_to_one(two_process_gradients, stats, value_and_grad):
    averaged, logits, labels, uniform = two_process_gradients
    _, expected = value_and_grad(FbsAegl(stats, mu=0.1), logits, labels, uniform)
    torch.testing.assert_close(averaged["global"], expected)
    assert not torch.allclose(averaged["local"], expected)
