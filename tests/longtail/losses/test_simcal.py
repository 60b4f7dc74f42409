"""SimCal: merged scores against the golden vector, and what its two halves learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aegl.longtail.base import HIDDEN
from aegl.longtail.losses.simcal import SimCal


def logits_of(rows: int) -> torch.Tensor:
    return torch.randn(rows, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_scores_of_the_golden_vector(golden: Any, make_stats: Any, dtype: torch.dtype) -> None:
    vector = golden("simcal")
    loss = SimCal(make_stats(vector["instance_counts"], np.zeros(30)), threshold=int(vector["threshold"]))
    logits = torch.as_tensor(np.concatenate([vector["logits"], vector["calibrated_logits"]], axis=1), dtype=dtype)
    assert (loss.num_logits, loss.column_groups) == (62, (31, 31))
    np.testing.assert_allclose(loss.scores(logits), vector["scores"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("threshold", "calibrated"), [(0, 0), (90, 3), (91, 4), (10**6, 6)])
def test_classes_below_the_threshold_are_calibrated(stats: Any, threshold: int, calibrated: int) -> None:
    """Instances are 2, 0, 30, 90, 500, 5000."""
    logits = logits_of(5)
    scores = SimCal(stats, threshold=threshold).scores(logits)
    second = scores == logits[:, 7:].softmax(1)[:, :6]
    assert torch.equal(second, (torch.arange(6) < calibrated).expand(5, 6))
    first = logits[:, :7].softmax(1)[:, :6]
    assert torch.equal(scores[~second], first[~second])


def test_only_the_calibrated_half_learns(stats: Any, batch: Any, value_and_grad: Any) -> None:
    logits = logits_of(40)
    value, grad = value_and_grad(SimCal(stats), logits, batch.labels)
    assert value == pytest.approx(F.cross_entropy(logits[:, 7:], batch.labels).item(), rel=1e-12)
    assert (grad[:, :7] == 0).all() and (grad[:, 7:] != 0).all()
    assert torch.equal(SimCal(stats).class_logits(logits), logits[:, 7:13])


def test_classes_are_hidden_where_they_are_learnt(stats: Any, batch: Any) -> None:
    logits = logits_of(40)
    given = SimCal(stats).hide_unverified(logits, batch.labels, torch.zeros(40, 6, dtype=torch.bool))
    own = F.one_hot(batch.labels, 7).bool()
    own[:, 6] = True  # background is never hidden
    assert torch.equal(given[:, :7], logits[:, :7])
    assert torch.equal(given[:, 7:], logits[:, 7:].where(own, HIDDEN))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_edges_stay_finite_and_connected(stats: Any, edge_batch: Any, dtype: torch.dtype) -> None:
    loss = SimCal(stats)
    logits, labels = edge_batch(loss, dtype)
    total = loss(logits, labels)["cls"]
    total.backward()
    assert total.dtype == torch.float32 and total.isfinite()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert loss.scores(logits).isfinite().all()
