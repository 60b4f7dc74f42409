"""GAP: the golden vector, a reference written out pair by pair, its state, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aegl.longtail.auxiliary.gap import Gap
from aegl.longtail.base import HIDDEN, ClassificationLoss, Rows
from aegl.longtail.losses.bags import Bags
from aegl.longtail.losses.seesaw import Seesaw
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.simcal import SimCal
from aegl.longtail.losses.softmax_ce import SoftmaxCE
from aegl.longtail.statistics import ClassStatistics

WORKER = """
import sys
import numpy as np, torch, torch.distributed as dist
from aegl.longtail.auxiliary.gap import Gap
from aegl.longtail.base import Rows
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.statistics import ClassStatistics

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
counts = np.ones(6, dtype=np.int64)
stats = ClassStatistics(counts, counts, 6, counts)
gap = Gap(stats)
labels = torch.tensor([0, 1, 6]) if rank == 0 else torch.zeros(0, dtype=torch.int64)
logits = torch.zeros(len(labels), 6, requires_grad=True)
gap(Rows(logits, labels, logits, None, labels, labels < 0), SigmoidBCE(stats))["gap"].backward()
np.save(f"{folder}/out{rank}.npy", gap.class_samples)
dist.destroy_process_group()
"""


class PlainLoss(ClassificationLoss):
    """The logits are those of the classes, as they are."""

    def class_logits(self, logits: Tensor) -> Tensor:
        return logits


PLAIN = PlainLoss(ClassStatistics(np.ones(1), np.ones(1), 1, np.ones(1)))


def rows(logits: Tensor, labels: Tensor) -> Rows:
    """Rows of which GAP reads logits and labels."""
    return Rows(logits, labels, logits, nn.Identity(), torch.full_like(labels, -1), labels < 0)


def value_and_grad(gap: Gap, logits: Tensor, labels: Tensor) -> tuple[float, np.ndarray]:
    leaf = logits.detach().clone().requires_grad_()
    value = gap(rows(leaf, labels), PLAIN)["gap"]
    value.backward()
    assert leaf.grad is not None
    return value.item(), leaf.grad.numpy()


def reference(logits: np.ndarray, labels: np.ndarray, weight: np.ndarray, delta: float) -> tuple[float, np.ndarray]:
    """Value and gradient from the definition, one pair of elements after the other."""
    number, classes = logits.shape
    positive = np.zeros((number, classes), dtype=bool)
    positive[np.arange(number)[labels < classes], labels[labels < classes]] = True
    grad, errors = np.zeros_like(logits), []
    present = sorted(set(labels[labels < classes]))
    for m in present:
        own = [row for row in range(number) if labels[row] == m]
        share = weight[m] / (len(own) * len(present))
        mean = 0.0
        for i in own:
            ramp = np.clip((logits - logits[i, m]) / (2 * delta) + 0.5, 0, 1)
            rank, negative = sum(ramp[j, m] for j in own), (ramp * ~positive).sum()
            mean += negative / (rank + negative) / len(own)
            grad[i, m] -= share * negative / (rank + negative)
            grad += share * ramp * ~positive / (rank + negative)
        errors.append(mean)
    return (float(np.mean(errors)) if errors else 0.0), grad


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize("counting", [True, False], ids=["counting", "counted"])
def test_golden_vector(golden: Any, make_stats: Any, counting: bool, dtype: torch.dtype, rtol: float) -> None:
    vector = golden("rog_gap")
    gap = Gap(
        make_stats(vector["instance_counts"], vector["freq_group"]),
        gamma=float(vector["gamma"]),
        gradient_scale=float(vector["lam"]),
        delta=float(vector["delta"]),
    )
    labels = torch.as_tensor(vector["labels"])
    gap.class_samples[:-1] = torch.as_tensor(vector["class_samples"])
    if counting:  # The vector's samples include its own batch.
        gap.class_samples -= torch.bincount(labels, minlength=31)
    gap.train(counting)
    value, grad = value_and_grad(gap, torch.as_tensor(vector["logits"], dtype=dtype), labels)
    assert value == pytest.approx(float(vector["loss"]), rel=rtol)
    np.testing.assert_allclose(grad, vector["grad"], rtol=rtol, atol=rtol * abs(vector["grad"]).max())


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 6), max_size=9),
    seed=st.integers(0, 2**16),
    spread=st.sampled_from([0.0, 0.3, 2.0, 30.0, 1e4]),
    delta=st.sampled_from([0.1, 0.5, 3.0]),
    digits=st.sampled_from([0, 1, 8]),
)
def test_the_sorted_sums_are_those_of_the_definition(
    stats: Any, labels: list[int], seed: int, spread: float, delta: float, digits: int
) -> None:
    """Rounded logits tie with each other and with the ends of the ramps."""
    rng = np.random.default_rng(seed)
    logits = np.round(spread * rng.standard_normal((len(labels), 6)), digits)
    gap = Gap(stats, delta=delta, gamma=0.5).eval()
    gap.class_samples.copy_(torch.as_tensor(rng.integers(0, 50, 7)))
    factor = np.maximum(gap.class_samples[:-1].numpy(), 1) ** -0.5
    numbers = np.asarray(labels, dtype=np.int64)
    value, grad = value_and_grad(gap, torch.as_tensor(logits), torch.as_tensor(numbers))
    expected, expected_grad = reference(logits, numbers, 0.1 * factor / factor.mean(), delta)
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-7, atol=1e-9)


def test_the_gradient_is_not_the_derivative_of_the_value(golden: Any, make_stats: Any) -> None:
    vector = golden("rog_gap")
    gap = Gap(make_stats(vector["instance_counts"], vector["freq_group"])).eval()
    logits, labels = torch.as_tensor(vector["logits"]), torch.as_tensor(vector["labels"])
    _, grad = value_and_grad(gap, logits, labels)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-5 * direction
    slope = (value_and_grad(gap, logits + step, labels)[0] - value_and_grad(gap, logits - step, labels)[0]) / 2e-5
    assert slope != pytest.approx(float((torch.as_tensor(grad) * direction).sum()), rel=0.1)


def test_a_perfect_ranking_has_nothing_to_learn(stats: Any) -> None:
    logits = torch.full((7, 6), -3.0)
    logits[torch.arange(6), torch.arange(6)] = 3.0
    value, grad = value_and_grad(Gap(stats), logits, torch.arange(7))
    assert value == 0 and not grad.any()


def test_it_pulls_positives_up_and_pushes_the_negatives_above_them_down(stats: Any) -> None:
    logits = torch.zeros(2, 6)
    logits[0, 1], logits[0, 2], logits[1, 3] = 1.0, -1.0, 5.0
    _, grad = value_and_grad(Gap(stats), logits, torch.tensor([1, 6]))
    assert grad[0, 1] < 0 < grad[1, 3]
    grad[0, 1] = grad[1, 3] = 0
    assert not grad.any()  # all others lie below the ramp


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_rare_samples_pull_more(stats: Any, gamma: float) -> None:
    """Two classes in the same place, seen 1 and 10 times."""
    gap = Gap(stats, gamma=gamma).eval()
    gap.class_samples.copy_(torch.tensor([1.0, 10, 1, 1, 1, 1, 1]))
    _, grad = value_and_grad(gap, torch.zeros(2, 6), torch.tensor([0, 1]))
    assert grad[0, 0] / grad[1, 1] == pytest.approx(10**gamma)


def test_the_scale_acts_on_the_gradient_only(stats: Any, batch: Any) -> None:
    (value, grad), (scaled, scaled_grad) = (
        value_and_grad(Gap(stats, gradient_scale=scale), batch.logits, batch.labels) for scale in (0.1, 0.3)
    )
    assert value == scaled
    np.testing.assert_allclose(scaled_grad, 3 * grad)


def test_how_far_a_negative_lies_above_the_ramps_does_not_matter(stats: Any, batch: Any) -> None:
    above = torch.rand(40, 6, generator=torch.Generator().manual_seed(1)) < 0.2
    above &= batch.labels[:, None] != torch.arange(6)
    near, far = (value_and_grad(Gap(stats), batch.logits.masked_fill(above, z), batch.labels) for z in (50.0, 1e15))
    assert near[0] == pytest.approx(far[0], rel=1e-9)
    np.testing.assert_allclose(near[1], far[1], rtol=1e-9, atol=1e-15)


def test_hidden_classes_take_no_part(stats: Any, batch: Any) -> None:
    hidden = torch.rand(40, 6, generator=torch.Generator().manual_seed(1)) < 0.5
    hidden &= batch.labels[:, None] != torch.arange(6)
    _, grad = value_and_grad(Gap(stats), batch.logits.masked_fill(hidden, HIDDEN), batch.labels)
    lowest = batch.logits.masked_fill(hidden, float(batch.logits.min()) - 10)
    _, expected = value_and_grad(Gap(stats), lowest, batch.labels)
    assert not grad[hidden.numpy()].any() and grad.any()
    np.testing.assert_allclose(grad, expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_edges_stay_finite_and_connected(stats: Any, edge_batch: Any, dtype: torch.dtype) -> None:
    logits, labels = edge_batch(SigmoidBCE(stats), dtype)
    value = Gap(stats)(rows(logits, labels), SigmoidBCE(stats))["gap"]
    value.backward()
    assert value.dtype == torch.float32 and 0 <= value <= 1
    assert logits.grad is not None and logits.grad.dtype == dtype and logits.grad.isfinite().all()


def test_samples_are_counted_in_training_and_saved(stats: Any, batch: Any) -> None:
    gap = Gap(stats)
    value_and_grad(gap, batch.logits, batch.labels)
    counted = torch.bincount(batch.labels, minlength=7)
    assert gap.class_samples.tolist() == counted.tolist()
    value_and_grad(gap.eval(), batch.logits, batch.labels)
    assert gap.class_samples.tolist() == counted.tolist()
    assert list(gap.state_dict()) == ["class_samples"]


def test_samples_are_summed_over_processes_also_if_one_has_no_rows(tmp_path: Path) -> None:
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(rank)]) for rank in range(2)]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    for rank in range(2):
        assert np.load(tmp_path / f"out{rank}.npy").tolist() == [1, 1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("loss_type", [SoftmaxCE, Seesaw, Bags, SimCal])
def test_it_ranks_the_class_logits_of_any_loss(stats: Any, batch: Any, loss_type: Any) -> None:
    loss = loss_type(stats)
    leaf = torch.randn(40, loss.num_logits, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    leaf.requires_grad_()
    value = Gap(stats)(rows(leaf, batch.labels), loss)["gap"]
    (grad,) = torch.autograd.grad(value, leaf)
    classes = loss.class_logits(leaf.detach())
    expected, expected_grad = value_and_grad(Gap(stats), classes, batch.labels)
    assert value.item() == expected
    np.testing.assert_array_equal(loss.class_logits(grad), expected_grad)
    assert (grad != 0).sum() == (expected_grad != 0).sum()
