"""Seesaw: the golden vector with its state, its two factors one by one, and two processes against one."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aegl.longtail.losses.seesaw import Seesaw

WORKER = """
import sys
import numpy as np, torch, torch.distributed as dist
from aegl.longtail.losses.seesaw import Seesaw
from aegl.longtail.statistics import ClassStatistics

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
counts = np.ones(6, dtype=np.int64)
loss = Seesaw(ClassStatistics(counts, counts, 6, counts))
for step in range(2):
    data = np.load(f"{folder}/in{step}.npz")
    logits, labels = (torch.from_numpy(np.split(data[name], 2)[rank]) for name in ("logits", "labels"))
    logits.requires_grad_()
    sum(loss(logits, labels).values()).backward()
# A rank without rows counts along.
empty = torch.zeros(3 * rank, 8, requires_grad=True)
loss(empty, torch.zeros(3 * rank, dtype=torch.int64))
np.savez(f"{folder}/out{rank}.npz", grad=logits.grad.numpy(), samples=loss.cum_samples.numpy())
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def vector(golden: Any) -> dict[str, np.ndarray]:
    return golden("seesaw")


def logits_of(rows: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-6), (torch.float32, 1e-5)], ids=["float64", "float32"])
def test_three_steps_of_the_golden_vector(vector: Any, make_stats: Any, dtype: torch.dtype, rtol: float) -> None:
    """The reference divides by N + 1.19e-7."""
    loss = Seesaw(
        make_stats(np.ones(30), np.zeros(30)), p=float(vector["p"]), q=float(vector["q"]), eps=float(vector["eps"])
    )
    for step in range(3):
        logits = torch.as_tensor(vector[f"step{step}_logits"], dtype=dtype).requires_grad_()
        terms = loss(logits, torch.as_tensor(vector[f"step{step}_labels"]))
        (terms["cls"] + terms["objectness"]).backward()
        assert terms["cls"].item() == pytest.approx(float(vector[f"step{step}_loss_classes"]), rel=rtol)
        assert terms["objectness"].item() == pytest.approx(float(vector[f"step{step}_loss_objectness"]), rel=rtol)
        np.testing.assert_allclose(logits.grad, vector[f"step{step}_grad"], rtol=rtol, atol=rtol / 100)
        np.testing.assert_array_equal(loss.cum_samples, vector[f"step{step}_cum_samples_after"])
    scores = loss.scores(logits.detach())
    np.testing.assert_allclose(scores, vector["scores_step2"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(1 - scores.sum(1), vector["background_score_step2"], rtol=0, atol=1e-6)


def test_without_factors_it_is_a_softmax_of_the_classes(stats: Any, batch: Any) -> None:
    logits = logits_of(40)
    foreground = batch.labels < 6
    terms = Seesaw(stats, p=0.0, q=0.0)(logits, batch.labels)
    expected = F.cross_entropy(logits[foreground, :6], batch.labels[foreground], reduction="sum") / 40
    torch.testing.assert_close(terms["cls"], expected)


def test_mitigation_is_the_ratio_of_samples(stats: Any) -> None:
    loss = Seesaw(stats, q=0.0)
    loss.cum_samples.copy_(torch.tensor([0.0, 1, 4, 8, 16, 64, 1000]))
    factors = loss.log_factors(torch.zeros(2, 6, dtype=torch.float64), torch.tensor([3, 0])).exp()
    torch.testing.assert_close(factors[0], (torch.tensor([1.0, 1, 4, 8, 8, 8]) / 8).double() ** 0.8)
    assert (factors[1] == 1).all()


def test_compensation_is_the_ratio_of_scores(stats: Any) -> None:
    scores = torch.tensor([[0.02, 0.06, 0.004, 0.9, 0.01, 0.006]], dtype=torch.float64)
    factors = Seesaw(stats, p=0.0).log_factors(scores.log(), torch.tensor([0])).exp()
    torch.testing.assert_close(factors, torch.tensor([[1, 9.0, 1, 45.0**2, 1, 1]], dtype=torch.float64))
    floored = Seesaw(stats, p=0.0).log_factors(scores.log(), torch.tensor([2])).exp()
    expected = torch.tensor([[4, 36, 1, 90**2, 1, 1]], dtype=torch.float64)
    torch.testing.assert_close(floored, expected)


def test_the_factors_are_constants(stats: Any, value_and_grad: Any) -> None:
    loss = Seesaw(stats)
    logits, labels = logits_of(1), torch.tensor([2])
    frozen = copy.deepcopy(loss)
    frozen.cum_samples[2] += 1
    factors = frozen.log_factors(logits[:, :6], labels)
    _, grad = value_and_grad(loss, logits, labels)
    probabilities = (logits[:, :6] + factors).softmax(1) - F.one_hot(labels, 6)
    torch.testing.assert_close(grad[:, :6], probabilities)


def test_samples_are_counted_before_the_loss_and_in_training_only(stats: Any, batch: Any) -> None:
    loss = Seesaw(stats)
    first = loss(logits_of(40), batch.labels)["cls"]
    counted = loss.cum_samples.clone()
    assert counted.tolist() == torch.bincount(batch.labels, minlength=7).tolist()
    loss.eval()
    assert loss(logits_of(40), batch.labels)["cls"] == first
    assert torch.equal(loss.cum_samples, counted)


def test_state_goes_on_from_a_checkpoint(stats: Any, batch: Any) -> None:
    unbroken, resumed = Seesaw(stats), Seesaw(stats)
    unbroken(logits_of(40), batch.labels)
    assert list(unbroken.state_dict()) == ["cum_samples"]
    resumed.load_state_dict(unbroken.state_dict())
    later = logits_of(40, seed=1)
    assert torch.equal(unbroken(later, batch.labels)["cls"], resumed(later, batch.labels)["cls"])


def test_two_processes_are_as_one(tmp_path: Path, stats: Any, batch: Any) -> None:
    loss = Seesaw(stats)
    for step in range(2):
        logits = logits_of(40, seed=step).requires_grad_()
        np.savez(tmp_path / f"in{step}.npz", logits=logits.detach(), labels=batch.labels)
        sum(loss(logits, batch.labels).values()).backward()  # type: ignore[union-attr]
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(rank)]) for rank in range(2)]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    parts = [np.load(tmp_path / f"out{rank}.npz") for rank in range(2)]
    # Each process divides by its own 20 rows; averaging over processes divides by 2.
    np.testing.assert_allclose(np.concatenate([part["grad"] for part in parts]) / 2, logits.grad)
    expected = loss.cum_samples.clone()
    expected[0] += 3
    for part in parts:
        np.testing.assert_array_equal(part["samples"], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_edges_stay_finite_and_connected(stats: Any, edge_batch: Any, dtype: torch.dtype) -> None:
    loss = Seesaw(stats)
    logits, labels = edge_batch(loss, dtype)
    terms = loss(logits, labels)
    total = terms["cls"] + terms["objectness"]
    total.backward()
    assert total.dtype == torch.float32 and total.isfinite()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert loss.scores(logits).isfinite().all()
