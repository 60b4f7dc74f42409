"""What LOCE, FASA and BALMS keep, over a real gloo group: two processes of N rows hold what one of 2N would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

WORKER = """
import sys
import numpy as np, torch, torch.distributed as dist
from torch import nn
from aegl.longtail.auxiliary.fasa import Fasa
from aegl.longtail.base import Rows
from aegl.longtail.losses._distributed import rows_of_all_ranks
from aegl.longtail.losses.balms import Balms
from aegl.longtail.losses.loce import Loce
from aegl.longtail.losses.softmax_ce import SoftmaxCE
from aegl.longtail.memories.loce import LoceMemory
from aegl.longtail.statistics import ClassStatistics

folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous{world}", rank=rank, world_size=world)
counts = np.array([2, 0, 30, 90, 500, 5000])
stats = ClassStatistics(counts, counts, 6000, np.array([0, 0, 1, 1, 2, 2]))


def rows(step, columns):
    # The foreground lies on the second half of the rows: in one step the first process has none, in the last no row.
    generator = torch.Generator().manual_seed(step)
    torch.manual_seed(0)
    classifier = nn.Linear(5, columns).double()
    features = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 7, (40,), generator=generator)
    labels[:20] = 6 if step == 1 else labels[:20]
    instance = torch.where(labels < 6, torch.arange(40) // 2 * 7 + labels, -1)
    if step == 3:
        features, labels, instance = features[20:], labels[20:], instance[20:]
        share = slice(0, 20 * rank if world == 2 else 20)
    else:
        share = slice(40 // world * rank, 40 // world * (rank + 1))
    features, labels, instance = features[share], labels[share], instance[share]
    return Rows(classifier(features), labels, features, classifier, instance, labels < 0)


state = {}
loce, fasa, balms = Loce(stats), Fasa(stats), Balms(stats, meta_rows=16, virtual_lr=0.3)
memory = LoceMemory(stats, queue_size=4, warmup=0.0)
grads = []
for step in range(4):
    batch = rows(step, 7)
    loce.observe(batch)
    fasa.step_begin(0.5, 0.9 * step)
    fasa(batch, SoftmaxCE(stats))
    chosen = batch.labels < 6
    memory.store(batch.features[chosen][:, :, None, None], batch.labels[chosen], batch.features[chosen][:, :4].float())
    batch = rows(step, 6)
    generator = torch.Generator().manual_seed(step)
    draws = {name: torch.rand(16, generator=generator).chunk(world)[rank] for name in ("classes", "entries")}
    if step < 3:  # both processes hold equally many rows, as DDP's average supposes
        balms.observe(batch, draws=draws)
        balms(batch.logits, batch.labels)["cls"].backward()
        grads.append(batch.classifier.weight.grad)
for name, part in (("loce", loce), ("fasa", fasa), ("balms", balms), ("memory", memory)):
    state |= {f"{name}.{key}": tensor for key, tensor in part.state_dict().items()}
draws = {"classes": torch.linspace(0, 0.99, 8).double(), "entries": torch.zeros(8, 4).double()}
recalled = memory.recall(loce, draws=draws)
state |= {f"recalled{i}": tensor for i, tensor in enumerate(recalled)} | {f"grad{i}": g for i, g in enumerate(grads)}
state["gathered"] = rows_of_all_ranks(torch.arange(3 * rank).view(-1, 1))
state["gathered_none"] = rows_of_all_ranks(torch.zeros(0, 2))
torch.save(state, f"{folder}/world{world}_rank{rank}.pt")
dist.destroy_process_group()
"""


def run(folder: Path, world: int) -> list[dict[str, Tensor]]:
    commands = [[sys.executable, "-c", WORKER, str(folder), str(rank), str(world)] for rank in range(world)]
    workers = [subprocess.Popen(command) for command in commands]
    assert [worker.wait(timeout=200) for worker in workers] == [0] * world
    return [torch.load(folder / f"world{world}_rank{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("runs")
    return run(folder, 1)[0], run(folder, 2)


def test_both_processes_hold_the_same_bits(runs: tuple[dict[str, Tensor], list[dict[str, Tensor]]]) -> None:
    _, (first, second) = runs
    shared = [name for name in first if not name.startswith("grad")]
    assert len(shared) > 15
    assert all(torch.equal(first[name], second[name]) for name in shared)


@pytest.mark.parametrize("part", ["loce", "fasa", "balms", "memory", "recalled"])
def test_two_processes_hold_what_one_does(part: str, runs: tuple[dict[str, Tensor], list[dict[str, Tensor]]]) -> None:
    one, (first, _) = runs
    names = [name for name in one if name.startswith(part)]
    assert names
    for name in names:
        torch.testing.assert_close(
            first[name], one[name], rtol=1e-9, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}"
        )
    assert one["loce.mean_score"].unique().numel() > 4 and one["balms.class_logit"].abs().sum() > 0


def test_averaged_gradients_of_two_processes_are_those_of_one(
    runs: tuple[dict[str, Tensor], list[dict[str, Tensor]]],
) -> None:
    one, (first, second) = runs
    for name in ("grad0", "grad1", "grad2"):
        torch.testing.assert_close((first[name] + second[name]) / 2, one[name], rtol=1e-9, atol=1e-12)


def test_rows_of_unequal_numbers_are_gathered_in_the_order_of_processes(
    runs: tuple[dict[str, Tensor], list[dict[str, Tensor]]],
) -> None:
    _, both = runs
    for state in both:
        assert state["gathered"].tolist() == [[0], [1], [2]]
        assert state["gathered_none"].shape == (0, 2)
