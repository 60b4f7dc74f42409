"""The account of what pushes each class's score up and down."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from aegl.longtail.gradients import GradientAccount
from aegl.longtail.losses.fbs_aegl import FbsAegl
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE


def account_of(stats: Any, loss: Any, logits: torch.Tensor, labels: torch.Tensor) -> GradientAccount:
    account = GradientAccount(stats)
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, labels)["cls"], leaf)
    account.add(gradient, labels)
    return account


def test_sums_are_those_of_a_loop_over_rows(stats: Any, batch: Any) -> None:
    account = account_of(stats, SigmoidBCE(stats), batch.logits, batch.labels)
    expected = np.zeros((3, 6))
    probability = batch.logits.sigmoid().numpy()
    for row, label in enumerate(batch.labels.tolist()):
        for column in range(6):
            kind = 0 if column == label else 2 if label == 6 else 1
            expected[kind, column] += abs(probability[row, column] - (column == label)) / len(batch.labels)
    np.testing.assert_allclose(account.sums, expected, rtol=1e-12)
    share = expected[1] / (expected[1] + expected[2])
    np.testing.assert_allclose(account.foreground_share(), share, rtol=1e-12)


def test_two_steps_add_up(stats: Any, batch: Any) -> None:
    once = account_of(stats, SigmoidBCE(stats), batch.logits, batch.labels)
    leaf = batch.logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(SigmoidBCE(stats)(leaf, batch.labels)["cls"], leaf)
    before = once.sums.clone()
    once.add(gradient, batch.labels)
    torch.testing.assert_close(once.sums, 2 * before)
    assert once.regions.sum() == 2 * len(batch.labels)


def test_active_shares_count_the_terms_that_a_gate_leaves(stats: Any, batch: Any) -> None:
    everything = account_of(stats, SigmoidBCE(stats), batch.logits, batch.labels)
    assert torch.equal(everything.active_share(), torch.ones(2, 6, dtype=torch.float64))
    nothing = account_of(stats, FbsAegl(stats, mu=1.5), batch.logits, batch.labels)
    assert torch.equal(nothing.active_share(), torch.zeros(2, 6, dtype=torch.float64))
    assert nothing.foreground_share().isnan().all() and (nothing.sums[0] > 0).any()


def test_no_rows_change_nothing(stats: Any) -> None:
    account = GradientAccount(stats)
    account.add(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    assert account.sums.sum() == 0 and account.regions.sum() == 0
    assert account.foreground_share().isnan().all()
