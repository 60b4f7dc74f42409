"""EQL v2 and EFL: golden vectors over three steps, their state, and two processes against one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from aegl.longtail.losses.efl import Efl
from aegl.longtail.losses.eqlv2 import EqlV2
from aegl.longtail.losses.focal import Focal
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE

BOTH = pytest.mark.parametrize("loss_type", [EqlV2, Efl])
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


@pytest.fixture
def steps(stats, batch):
    """Three batches of logits (with a background column) and labels."""
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(40, 7, generator=generator).double(), batch.labels.roll(3 * step)) for step in range(3)]


def columns(loss, logits):
    return logits[:, : loss.num_logits]


def close(actual, expected, dtype):
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(actual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


# Golden vectors -------------------------------------------------------------------------------------------------------


@DTYPES
def test_golden_eqlv2(golden, stats_of, evaluate, dtype):
    data = golden("eqlv2")
    loss = EqlV2(
        stats_of({"instance_counts": np.ones(30)}),
        gamma=float(data["gamma"]),
        mu=float(data["mu"]),
        alpha=float(data["alpha"]),
    )
    for step in range(3):
        logits = torch.as_tensor(data[f"step{step}_logits"], dtype=dtype)
        labels = torch.as_tensor(data[f"step{step}_labels"])
        weights = golden_weights(loss, dtype)
        close(weights["positive"], data[f"step{step}_pos_weight"][:30], dtype)
        close(weights["negative"], data[f"step{step}_neg_weight"][:30], dtype)
        value, grad = evaluate(loss, logits, labels)
        close(value, data[f"step{step}_loss"], dtype)
        close(grad, data[f"step{step}_grad"], dtype)
        close(loss.gradient.positive, data[f"step{step}_pos_grad_after"], dtype)
        close(loss.gradient.negative, data[f"step{step}_neg_grad_after"], dtype)
        close(loss.gradient.ratio(), data[f"step{step}_ratio_after"], dtype)
    np.testing.assert_allclose(loss.scores(logits), data["scores_step2"], rtol=0, atol=1e-6)


def golden_weights(loss, dtype):
    """Weight of a positive and of a negative term of every class, without a trace in the state."""
    labels = torch.arange(31)  # the last row is background
    weights = loss.element_weights(torch.full((31, 30), 0.5, dtype=dtype), labels, {})
    return {"positive": weights.diagonal(), "negative": weights[30]}


@DTYPES
def test_golden_efl(golden, stats_of, evaluate, dtype):
    data = golden("efl")
    loss = Efl(
        stats_of({"instance_counts": np.ones(30)}),
        gamma=float(data["focal_gamma"]),
        alpha=float(data["focal_alpha"]),
        scale=float(data["scale_factor"]),
    )
    for step in range(3):
        close(loss.focusing(), data[f"step{step}_focusing_factor"], dtype)
        logits = torch.as_tensor(data[f"step{step}_logits"], dtype=dtype)
        value, grad = evaluate(loss, logits, data[f"step{step}_labels"])
        close(value, data[f"step{step}_loss"], dtype)
        close(grad, data[f"step{step}_grad"], dtype)
        close(loss.gradient.positive, data[f"step{step}_pos_grad_after"], dtype)
        close(loss.gradient.negative, data[f"step{step}_neg_grad_after"], dtype)
        close(loss.gradient.ratio().clamp(max=1), data[f"step{step}_ratio_after"], dtype)
    np.testing.assert_allclose(loss.scores(logits), data["scores_step2"], rtol=0, atol=1e-6)


# Relations ------------------------------------------------------------------------------------------------------------


def test_the_first_step_of_eqlv2_is_sigmoid_bce_with_objectness(stats, steps, evaluate):
    logits, labels = steps[0]
    value, grad = evaluate(EqlV2(stats), logits, labels)
    expected, expected_grad = evaluate(SigmoidBCE(stats, objectness=True), logits, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_the_first_step_of_efl_is_focal_loss(stats, steps, evaluate):
    logits, labels = steps[0][0][:, :6], steps[0][1]
    value, grad = evaluate(Efl(stats), logits, labels)
    expected, expected_grad = evaluate(Focal(stats), logits, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_the_gradients_efl_remembers_are_those_of_autograd(stats, steps, evaluate):
    loss = Efl(stats, loss_weight=3.0)
    for logits, labels in steps:
        before = loss.gradient.positive.clone(), loss.gradient.negative.clone()
        _, grad = evaluate(loss, logits[:, :6], labels)
        own = labels[:, None] == torch.arange(6)
        magnitude = grad.abs() / 3  # the loss's weight in the model is no part of the ratio
        torch.testing.assert_close(loss.gradient.positive - before[0], (magnitude * own).sum(dim=0))
        torch.testing.assert_close(loss.gradient.negative - before[1], (magnitude * ~own).sum(dim=0))


def test_a_class_short_of_positive_gradient_is_raised_and_spared(stats, evaluate):
    loss = EqlV2(stats)
    labels = torch.tensor([5] * 20 + [6] * 20)
    evaluate(loss, torch.zeros(40, 7), labels)
    assert loss.gradient.ratio()[5] == pytest.approx(1.0)
    assert (loss.gradient.ratio()[:5] == 0).all()
    loss.eval()
    weights = loss.element_weights(torch.full((1, 6), 0.5), labels[:1], {})[0]
    assert weights[:5].tolist() == pytest.approx([6.77e-5] * 5, rel=1e-3)
    assert weights[5] > 0.9


def test_a_class_rich_in_positive_gradient_has_the_focus_of_a_balanced_one(stats, evaluate):
    loss = Efl(stats)
    evaluate(loss, torch.full((8, 6), -2.0), torch.full((8,), 5))
    evaluate(loss, torch.full((1, 6), -2.0), torch.tensor([6]))
    assert loss.gradient.ratio()[5] > 1
    assert loss.focusing()[5] == 2
    assert (loss.focusing()[:5] == 10).all()


# State ----------------------------------------------------------------------------------------------------------------


@BOTH
def test_state_moves_in_training_only(stats, steps, loss_type):
    loss = loss_type(stats).eval()
    logits, labels = steps[0]
    loss(columns(loss, logits), labels)
    assert not loss.gradient.negative.any()
    loss.train()(columns(loss, logits), labels)
    assert loss.gradient.negative.all()
    assert loss.gradient.positive.dtype == torch.float64


@BOTH
def test_state_continues_from_a_checkpoint(stats, steps, evaluate, loss_type):
    unbroken, first = loss_type(stats), loss_type(stats)
    for logits, labels in steps[:2]:
        evaluate(unbroken, columns(unbroken, logits), labels)
        evaluate(first, columns(first, logits), labels)
    assert sorted(first.state_dict()) == ["gradient.negative", "gradient.positive"]
    resumed = loss_type(stats)
    resumed.load_state_dict(first.state_dict())
    logits, labels = steps[2]
    value, grad = evaluate(resumed, columns(resumed, logits), labels)
    expected, expected_grad = evaluate(unbroken, columns(unbroken, logits), labels)
    assert torch.equal(value, expected)
    assert torch.equal(grad, expected_grad)


@BOTH
def test_a_batch_without_rows_leaves_the_state(stats, steps, evaluate, loss_type):
    loss = loss_type(stats)
    evaluate(loss, columns(loss, steps[0][0]), steps[0][1])
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    value, _ = evaluate(loss, torch.zeros(0, loss.num_logits), torch.zeros(0, dtype=torch.int64))
    assert value == 0
    assert all(torch.equal(before[name], value) for name, value in loss.state_dict().items())


def test_efl_ignores_rows_labelled_minus_one(stats, steps, evaluate):
    logits, labels = steps[0][0][:, :6], steps[0][1]
    ignored = torch.arange(40) % 4 == 0
    some, all_rows = Efl(stats), Efl(stats)
    value, grad = evaluate(all_rows, logits, labels.masked_fill(ignored, -1))
    expected, expected_grad = evaluate(some, logits[~ignored], labels[~ignored])
    assert torch.equal(value, expected)
    assert torch.equal(grad[~ignored], expected_grad)
    assert (grad[ignored] == 0).all()
    assert torch.equal(all_rows.gradient.negative, some.gradient.negative)


WORKER = """
import sys
import numpy as np, torch, torch.distributed as dist
from aegl.longtail.losses.efl import Efl
from aegl.longtail.losses.eqlv2 import EqlV2
from aegl.longtail.statistics import ClassStatistics

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
data = np.load(f"{folder}/in.npz")
counts = np.ones(6, dtype=np.int64)
stats = ClassStatistics(counts, counts, 6, np.full(6, 2))
found = {}
for loss in (EqlV2(stats), Efl(stats)):
    for step in range(3):
        # The ranks' batches differ in size, and the last step of rank 1 has no rows.
        rows = slice(0, 26) if rank == 0 else slice(26, 26 if step == 2 else 40)
        logits, labels = (torch.from_numpy(data[f"{kind}{step}"][rows]) for kind in ("logits", "labels"))
        loss(logits[:, : loss.num_logits], labels)
    found[f"{type(loss).__name__}_positive"] = loss.gradient.positive.numpy()
    found[f"{type(loss).__name__}_negative"] = loss.gradient.negative.numpy()
np.savez(f"{folder}/out{rank}.npz", **found)
dist.destroy_process_group()
"""


def test_two_processes_hold_the_state_of_one(tmp_path, stats, steps):
    arrays = {f"logits{i}": logits.numpy() for i, (logits, _) in enumerate(steps)}
    arrays |= {f"labels{i}": labels.numpy() for i, (_, labels) in enumerate(steps)}
    np.savez(tmp_path / "in.npz", **arrays)
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(rank)]) for rank in range(2)]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0]
    first, second = (dict(np.load(tmp_path / f"out{rank}.npz")) for rank in range(2))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)
    one = EqlV2(stats)
    for step, (logits, labels) in enumerate(steps):
        rows = slice(0, 26 if step == 2 else 40)
        one(logits[rows], labels[rows])
    np.testing.assert_allclose(first["EqlV2_positive"], one.gradient.positive, rtol=1e-12)
    np.testing.assert_allclose(first["EqlV2_negative"], one.gradient.negative, rtol=1e-12)
