"""LOCE's loss: golden vectors of the loss and of one renewal of the mean scores, and what both do at the limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aegl.longtail.base import HIDDEN, Rows
from aegl.longtail.losses.loce import Loce
from aegl.longtail.losses.softmax_ce import SoftmaxCE


def rows(logits: Tensor, labels: Tensor, instance: Tensor, remembered: Tensor | None = None) -> Rows:
    remembered = torch.zeros_like(labels, dtype=torch.bool) if remembered is None else remembered
    return Rows(logits, labels, logits, nn.Identity(), instance, remembered)


@pytest.fixture(scope="module")
def golden(golden: Any) -> dict[str, np.ndarray]:
    return golden("loce")


def golden_rows(golden: dict[str, np.ndarray], background: int) -> Rows:
    """The rows of the vector: two images, positives first in each, then those of the memory."""
    per_image = int(golden["ms_samples_per_image"])
    labels, instance = [], []
    for image, offset in (("0", 0), ("1", len(golden["ms_gt0"]))):
        assigned = golden[f"ms_assigned{image}"]
        empty = per_image - len(assigned)
        labels += [*golden[f"ms_gt{image}"][assigned], *[background] * empty]
        instance += [*(assigned + offset), *[-1] * empty]
    memory = golden["ms_memory_labels"]
    remembered = [False] * len(labels) + [True] * len(memory)
    labels, instance = [*labels, *memory], [*instance, *[-1] * len(memory)]
    logits = torch.as_tensor(golden["ms_logits"])
    return rows(logits, torch.tensor(labels), torch.tensor(instance), torch.tensor(remembered))


def test_golden_loss(golden: Any, stats_of: Any, assert_golden: Any) -> None:
    def make() -> Loce:
        loss = Loce(stats_of(golden))
        loss.mean_score.copy_(torch.as_tensor(golden["ebl_mean_score"]))
        return loss

    # The authors' sum is divided by N + 1.19e-7.
    assert_golden(make, golden["ebl_logits"], golden["labels"], golden["ebl_loss"], golden["ebl_grad"], 1e-6)
    scores = make().scores(torch.as_tensor(golden["ebl_logits"]))
    np.testing.assert_allclose(scores, golden["scores"], rtol=0, atol=1e-6)


def test_golden_mean_scores(golden: Any, stats_of: Any) -> None:
    loss = Loce(stats_of(golden))
    loss.observe(golden_rows(golden, loss.num_classes))
    np.testing.assert_allclose(loss.mean_score, golden["ms_after"], rtol=1e-9)


def test_equal_mean_scores_make_it_softmax_cross_entropy(stats: Any, batch: Any, evaluate: Any) -> None:
    logits = torch.cat([batch.logits, batch.logits[:, :1]], dim=1)
    value, grad = evaluate(Loce(stats), logits, batch.labels)
    expected, expected_grad = evaluate(SoftmaxCE(stats), logits, batch.labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_several_objects_of_a_class_weigh_as_so_many_steps(stats: Any) -> None:
    loss, logits = Loce(stats), torch.zeros(3, 7)
    loss.observe(rows(logits, torch.tensor([2, 2, 2]), torch.tensor([4, 4, 9])))
    kept = 0.9**2
    assert loss.mean_score[2].item() == pytest.approx(kept * 0.01 + (1 - kept) / 7)
    untouched = [0, 1, 3, 4, 5, 6]
    assert torch.equal(loss.mean_score[untouched], torch.full((6,), 0.01, dtype=torch.float64))


def test_remembered_regions_of_a_class_count_once_and_apart_from_its_objects(stats: Any) -> None:
    logits = torch.zeros(4, 7)
    logits[1:3, 2] = 50.0  # both remembered regions are scored 1
    labels, instance = torch.tensor([2, 2, 2, 6]), torch.tensor([0, -1, -1, -1])
    loss = Loce(stats)
    loss.observe(rows(logits, labels, instance, torch.tensor([False, True, True, False])))
    kept = 0.9**2
    assert loss.mean_score[2].item() == pytest.approx(kept * 0.01 + (1 - kept) * (1 + 1 / 7) / 2)


def test_nothing_changes_in_evaluation_or_without_foreground(stats: Any) -> None:
    loss = Loce(stats)
    start = loss.mean_score.clone()
    background, none = torch.full((5,), 6), torch.zeros(0, dtype=torch.int64)
    loss.observe(rows(torch.randn(5, 7), background, -torch.ones(5, dtype=torch.int64)))
    loss.observe(rows(torch.zeros(0, 7), none, none))
    loss.eval().observe(rows(torch.randn(1, 7), torch.tensor([1]), torch.tensor([0])))
    assert torch.equal(loss.mean_score, start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["empty", "no_foreground", "no_background", "huge", "hidden"])
def test_finite_and_connected(stats: Any, kind: str, dtype: torch.dtype) -> None:
    count = 0 if kind == "empty" else 14
    labels = {"no_foreground": torch.full((14,), 6), "no_background": torch.arange(14) % 6}.get(
        kind, torch.arange(count) % 7
    )
    leaf = torch.randn(count, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    leaf = (1e4 * leaf.sign() if kind == "huge" else leaf).requires_grad_()
    loss = Loce(stats)
    logits = loss.hide_unverified(leaf, labels, torch.zeros(count, 6, dtype=torch.bool)) if kind == "hidden" else leaf
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss.observe(rows(logits, labels, torch.where(labels < 6, torch.arange(count), -1)))
            (total,) = loss(logits, labels).values()
        (grad,) = torch.autograd.grad(total, leaf, retain_graph=True)
        assert total.dtype == torch.float32 and total.isfinite() and grad.isfinite().all()
        assert (loss.mean_score >= 0).all() and (loss.mean_score <= 1).all()
    if kind == "hidden":
        assert (logits[:, :6][labels == 6] == HIDDEN).all()


def test_a_class_whose_mean_score_has_vanished_still_learns(stats: Any) -> None:
    loss = Loce(stats, decay=0.0)
    logits = torch.zeros(1, 7)
    logits[0, 6] = 1e5
    loss.observe(rows(logits, torch.tensor([0]), torch.tensor([0])))
    assert loss.mean_score[0] == 0
    leaf = torch.zeros(1, 7, requires_grad=True)
    loss(leaf, torch.tensor([0]))["cls"].backward()
    assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad[0, 0] < -0.9


def test_the_state_round_trip_goes_on_alike(stats: Any, batch: Any) -> None:
    logits = torch.cat([batch.logits, batch.logits[:, :1]], dim=1)
    seen = rows(logits, batch.labels, torch.where(batch.labels < 6, torch.arange(40) // 2, -1))
    loss, other = Loce(stats), Loce(stats)
    loss.observe(seen)
    other.load_state_dict(loss.state_dict())
    for each in (loss, other):
        each.observe(seen)
    assert torch.equal(loss.mean_score, other.mean_score)
    assert torch.equal(loss(logits, batch.labels)["cls"], other(logits, batch.labels)["cls"])
