"""LDAM: the golden vector in both halves of training, and what it becomes without margins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aegl.longtail.base import HIDDEN
from aegl.longtail.classifiers import build_classifier
from aegl.longtail.losses.ldam import Ldam


@pytest.fixture(scope="module")
def vector(golden: Any) -> dict[str, np.ndarray]:
    return golden("ldam")


def cosines(rows: int, columns: int = 7) -> torch.Tensor:
    return 2 * torch.rand(rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["float64", "float32"])
@pytest.mark.parametrize(("progress", "prefix"), [(0.0, ""), (0.79, ""), (0.8, "drw_"), (0.99, "drw_")])
def test_golden_vector(
    vector: Any, make_stats: Any, value_and_grad: Any, progress: float, prefix: str, dtype: torch.dtype, rtol: float
) -> None:
    loss = Ldam(make_stats(vector["instance_counts"], np.zeros(30)), max_margin=0.5, scale=float(vector["scale"]))
    loss.step_begin(progress, 0.0)
    # The reference has no background: a hidden last column takes no part.
    logits = F.pad(torch.as_tensor(vector["logits"], dtype=dtype), (0, 1), value=HIDDEN)
    value, grad = value_and_grad(loss, logits, vector["labels"])
    assert value == pytest.approx(float(vector[f"{prefix}loss"]), rel=rtol)
    np.testing.assert_allclose(grad[:, :30], vector[f"{prefix}grad"], rtol=rtol, atol=rtol)
    assert (grad[:, 30] == 0).all()


def test_margins_and_weights_are_the_references(vector: Any, make_stats: Any) -> None:
    loss = Ldam(make_stats(vector["instance_counts"], np.zeros(30)))
    np.testing.assert_allclose(loss.margins[:-1], vector["margins"], rtol=1e-12)
    np.testing.assert_allclose(loss.deferred_weight[:-1], vector["drw_weight"], rtol=1e-9)
    assert (loss.margins[-1], loss.deferred_weight[-1]) == (0, 1)  # background


def test_without_margin_it_is_a_scaled_softmax(stats: Any, batch: Any, value_and_grad: Any) -> None:
    value, _ = value_and_grad(Ldam(stats, max_margin=0.0, scale=5.0), cosines(40), batch.labels)
    assert value == pytest.approx(F.cross_entropy(5 * cosines(40), batch.labels).item(), rel=1e-12)


def test_a_beta_of_zero_changes_nothing(stats: Any, batch: Any, value_and_grad: Any) -> None:
    loss = Ldam(stats, beta=0.0)
    before, _ = value_and_grad(loss, cosines(40), batch.labels)
    loss.step_begin(0.9, 0.0)
    assert value_and_grad(loss, cosines(40), batch.labels)[0] == pytest.approx(before, rel=1e-12)


def test_weights_can_be_left_off_or_act_from_the_start(stats: Any, batch: Any, value_and_grad: Any) -> None:
    never, always = Ldam(stats, deferred_from=1.0), Ldam(stats, deferred_from=0.0)
    never.step_begin(0.999, 0.0)
    plain, weighted = (value_and_grad(loss, cosines(40), batch.labels)[0] for loss in (never, always))
    assert plain != pytest.approx(weighted, rel=1e-3)
    weight = always.deferred_weight[batch.labels]
    margins = F.one_hot(batch.labels, 7) * always.margins
    rows = F.cross_entropy(30 * (cosines(40) - margins), batch.labels, reduction="none")
    assert weighted == pytest.approx(((weight * rows).sum() / weight.sum()).item(), rel=1e-12)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_classifier_has_no_bias_to_learn(stats: Any, kind: Any) -> None:
    layer = build_classifier(kind, 16, 7)
    Ldam(stats).init_classifier(layer)
    assert (layer.bias == 0).all() and not layer.bias.requires_grad and layer.weight.requires_grad


def test_scores_are_the_scaled_softmax_without_background(stats: Any) -> None:
    torch.testing.assert_close(Ldam(stats).scores(cosines(4)), (30 * cosines(4)).softmax(1)[:, :6])


@pytest.mark.parametrize("progress", [0.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_edges_stay_finite_and_connected(stats: Any, edge_batch: Any, dtype: torch.dtype, progress: float) -> None:
    loss = Ldam(stats)
    loss.step_begin(progress, 0.0)
    logits, labels = edge_batch(loss, dtype)
    total = loss(logits, labels)["cls"]
    total.backward()
    assert total.dtype == torch.float32 and total.isfinite()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert loss.scores(logits).isfinite().all()
