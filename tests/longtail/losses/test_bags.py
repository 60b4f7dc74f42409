"""BAGS: the golden vector, the layout of its columns, and which rows train a group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aegl.errors import ConfigError
from aegl.longtail.base import HIDDEN
from aegl.longtail.losses.bags import Bags

LABELS = torch.tensor([0, 2, 3, 3, 4, 5, 6, 6, 6, 6])


@pytest.fixture(scope="module")
def bags(golden: Any) -> dict[str, np.ndarray]:
    return golden("bags")


def of_vector(bags: dict[str, np.ndarray], make_stats: Any, **options: Any) -> Bags:
    return Bags(make_stats(bags["instance_counts"], bags["freq_group"], bags["image_counts"]), **options)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize("beta", [1, 8])
def test_golden_vector(bags: Any, make_stats: Any, value_and_grad: Any, beta: int, dtype: Any, rtol: float) -> None:
    loss = of_vector(bags, make_stats, others_ratio=beta)
    logits = torch.as_tensor(bags["logits"], dtype=dtype)
    assert loss.num_logits == logits.shape[1]
    # The smallest draws are taken: 0 for the rows that the reference took.
    uniform = 1.0 - bags[f"beta{beta}_group_weights"][:-1]
    value, grad = value_and_grad(loss, logits, bags["labels"], uniform)
    assert value == pytest.approx(float(bags[f"beta{beta}_loss"]), rel=rtol)
    np.testing.assert_allclose(grad, bags[f"beta{beta}_grad"], rtol=rtol, atol=rtol / 100)
    np.testing.assert_allclose(loss.scores(logits), bags["scores"][:, :-1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("beta", [1, 8])
def test_as_many_rows_are_drawn_as_in_the_reference(bags: Any, make_stats: Any, beta: int) -> None:
    loss = of_vector(bags, make_stats, others_ratio=beta)
    targets = loss.targets[:, torch.as_tensor(bags["labels"])]
    np.testing.assert_array_equal(targets, bags["group_labels"])
    used = loss._rows_used(targets[:-1], {})
    np.testing.assert_array_equal(used.sum(1), bags[f"beta{beta}_group_weights"].sum(1))
    assert (used[:-1][targets[:-1] > 0] == 1).all()


def test_columns_stand_group_by_group(bags: Any, make_stats: Any) -> None:
    loss = of_vector(bags, make_stats)
    for group, (start, length) in enumerate(bags["group_slices"]):
        members = (bags["group_ids"] == group).nonzero()[0]
        assert loss.sizes[group] == length
        if group < 4:
            assert loss.columns[members].tolist() == list(range(start + 1, start + length))
    assert loss.columns.sort().values.tolist() == list(range(loss.num_logits))


def test_an_edge_belongs_to_the_group_above(make_stats: Any) -> None:
    stats = make_stats([0, 9, 10, 99, 100, 999, 1000], [0] * 7, [1] * 7)
    assert Bags(stats).sizes == [3, 3, 3, 2, 2]
    assert Bags(stats, group_edges=[10]).sizes == [3, 6, 2]
    assert Bags(stats, group_by="images").sizes == [8, 1, 1, 1, 2]


@pytest.mark.parametrize("edges", [[10, 10], [100, 10]])
def test_edges_must_rise(stats: Any, edges: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"loss\.group_edges=\[10+, 10\]: each edge must be larger"):
        Bags(stats, group_edges=edges)


def test_one_group_of_all_rows_is_a_softmax_and_an_objectness(stats: Any, batch: Any, value_and_grad: Any) -> None:
    loss = Bags(stats, group_edges=[], others_ratio=1e9)
    logits = torch.randn(40, loss.num_logits, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value, _ = value_and_grad(loss, logits, batch.labels)
    softmax = F.cross_entropy(logits[:, [1, 2, 3, 4, 5, 6, 0]], batch.labels)
    objectness = F.cross_entropy(logits[:, 7:], (batch.labels == 6).long())
    assert value == pytest.approx((softmax + objectness).item(), rel=1e-12)


def test_a_group_without_rows_learns_nothing(stats: Any, value_and_grad: Any) -> None:
    loss = Bags(stats)
    labels = torch.tensor([2, 3, 6, 6])  # both classes of the second group
    _, grad = value_and_grad(loss, torch.randn(4, loss.num_logits), labels)
    learnt = [bool(part.any()) for part in grad.split(loss.sizes, dim=1)]
    assert learnt == [False, True, False, False, True]


def test_other_rows_are_drawn_evenly(stats: Any) -> None:
    torch.manual_seed(0)
    loss = Bags(stats, others_ratio=2.0)
    targets = loss.targets[:, LABELS]
    mean = torch.stack([loss._rows_used(targets[:-1], {}) for _ in range(2000)]).mean(0)
    rare, common, *_ = mean  # one own row and nine others; three and seven
    torch.testing.assert_close(rare[1:], torch.full((9,), 2 / 9), atol=0.04, rtol=0)
    torch.testing.assert_close(common[[0, *range(4, 10)]], torch.full((7,), 6 / 7), atol=0.04, rtol=0)
    assert (mean[-1] == 1).all()


def test_a_class_is_scored_by_its_group_and_objectness(stats: Any) -> None:
    loss = Bags(stats)
    logits = torch.zeros(1, loss.num_logits)
    # Groups: {0, 1}, {2, 3}, {4}, {5}, each with its others; object against background.
    expected = torch.tensor([[1 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2]]) / 2
    torch.testing.assert_close(loss.scores(logits), expected)
    torch.testing.assert_close(loss.class_logits(torch.eye(loss.num_logits)[loss.columns[:6]]), torch.eye(6))
    raised = loss.scores(torch.eye(loss.num_logits)[loss.columns[:6]])
    assert (raised.argmax(1) == torch.arange(6)).all()


def test_hidden_classes_are_hidden_in_their_own_columns(stats: Any, batch: Any, value_and_grad: Any) -> None:
    loss = Bags(stats)
    logits = torch.randn(40, loss.num_logits, generator=torch.Generator().manual_seed(0))
    verified = torch.rand(40, 6, generator=torch.Generator().manual_seed(1)) < 0.5
    given = loss.hide_unverified(logits, batch.labels, verified)
    hidden = ~(verified | (batch.labels[:, None] == torch.arange(6)))
    assert torch.equal(given[:, loss.columns[:6]] == HIDDEN, hidden)
    assert torch.equal(given[given != HIDDEN], logits[given != HIDDEN])
    _, grad = value_and_grad(loss, given, batch.labels)
    assert (grad[given == HIDDEN] == 0).all() and (grad[given != HIDDEN] != 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"group_edges": []}, {"others_ratio": 0.0}], ids=["default", "one", "none"])
def test_edges_stay_finite_and_connected(stats: Any, edge_batch: Any, options: Any, dtype: torch.dtype) -> None:
    loss = Bags(stats, **options)
    logits, labels = edge_batch(loss, dtype)
    total = loss(logits, labels)["cls"]
    total.backward()
    assert total.dtype == torch.float32 and total.isfinite()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert loss.scores(logits).isfinite().all() and loss.scores(logits).shape == (len(labels), 6)


def test_nothing_of_the_layout_is_saved(stats: Any) -> None:
    assert Bags(stats).state_dict() == {}
