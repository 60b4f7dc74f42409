"""Batches and logits at the limits, over all re-weighted losses of this folder; export of their scores."""

from __future__ import annotations

import pytest
import torch

from aegl.errors import ConfigError
from aegl.longtail import LOSSES

BACKGROUND = 6
LOSS_OPTIONS = [
    ("acsl", {}),
    ("balanced_softmax", {}),
    ("balanced_softmax", {"form": "sigmoid"}),
    ("class_balanced", {}),
    ("class_balanced", {"base": "focal", "normalization": "sum_of_weights"}),
    ("droploss", {}),
    ("efl", {}),
    ("eql", {}),
    ("eql", {"activation": "gumbel"}),
    ("eql_softmax", {}),
    ("eql_softmax", {"gamma": 1.0}),
    ("eqlv2", {}),
    ("federated", {"num_classes_kept": 3}),
    ("focal", {}),
    ("gol", {}),
    ("gumbel_ce", {}),
]
ALL = pytest.mark.parametrize(
    ("name", "options"), LOSS_OPTIONS, ids=["-".join([n, *map(str, o.values())]) for n, o in LOSS_OPTIONS]
)


@pytest.mark.parametrize("kind", ["empty", "no_foreground", "no_background", "huge", "all_huge_wrong", "hidden"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@ALL
def test_finite_and_connected(stats, name, options, dtype, kind):
    loss = LOSSES[name](stats, **options)
    rows = 0 if kind == "empty" else 14
    labels = torch.arange(rows) % 7
    if kind == "no_foreground":
        labels = torch.full((rows,), BACKGROUND)
    if kind == "no_background":
        labels = labels % 6
    leaf = torch.randn(rows, loss.num_logits, generator=torch.Generator().manual_seed(0)).to(dtype)
    if kind == "huge":
        leaf = 1000 * leaf.sign()
    if kind == "all_huge_wrong":
        leaf = torch.full_like(leaf, 1000.0)
        leaf[torch.arange(rows), labels.clamp(max=loss.num_logits - 1)] = -1000.0
    leaf.requires_grad_()
    logits = loss.hide_unverified(leaf, labels, torch.zeros(rows, 6, dtype=torch.bool)) if kind == "hidden" else leaf
    for _ in range(3):  # the state of one step is the weight of the next
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = loss(logits, labels)["cls"]
        (grad,) = torch.autograd.grad(total, leaf, retain_graph=True)
        assert total.dtype == torch.float32
        assert total.isfinite() and total >= 0
        assert grad.isfinite().all()
        assert all(value.isfinite().all() for value in loss.diagnostics.values())
        assert all(value.isfinite().all() for value in loss.buffers())
    scores = loss.scores(logits.detach())
    assert scores.dtype == torch.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    if kind == "empty":
        assert total.item() == 0


@ALL
def test_gradient_is_that_of_the_value(stats, batch, name, options):
    """Central differences, where no weight changes; what the state weighs stands still in eval mode."""
    torch.manual_seed(0)
    loss = LOSSES[name](stats, **options).double().eval()
    logits = torch.cat([batch.logits, torch.randn(40, 1).double()], dim=1)[:, : loss.num_logits].clamp(-3, 3)
    leaf = logits.clone().requires_grad_()
    draws = {"uniform": batch.uniform, "class_uniform": batch.uniform[0]}
    loss(leaf, batch.labels, draws=draws)["cls"].backward()
    step = 1e-6
    for row, column in ((0, 1), (20, 5), (33, 0)):
        values = []
        for sign in (1, -1):
            moved = logits.clone()
            moved[row, column] += sign * step
            values.append(loss(moved, batch.labels, draws=draws)["cls"])
        numeric = ((values[0] - values[1]) / (2 * step)).item()
        assert leaf.grad[row, column].item() == pytest.approx(numeric, abs=1e-7)


class _Scores(torch.nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, logits):
        return self.loss.scores(logits)


@ALL
def test_scores_can_be_exported_and_hold_nothing_of_training(stats, name, options):
    loss = LOSSES[name](stats, **options)
    logits = torch.randn(2, 5, loss.num_logits)
    exported = torch.export.export(_Scores(loss), (logits,))
    torch.testing.assert_close(exported.module()(logits), loss.scores(logits))
    assert loss.scores(logits).shape == (2, 5, 6)
    assert not [node for node in exported.graph.nodes if node.name.startswith("b_") and node.users]


@ALL
def test_loss_weight_scales(stats, batch, name, options):
    torch.manual_seed(0)
    columns = LOSSES[name](stats, **options).num_logits
    logits = torch.cat([batch.logits, torch.randn(40, 1).double()], dim=1)[:, :columns]
    draws = {"uniform": batch.uniform, "class_uniform": batch.uniform[0]}
    one, two = (LOSSES[name](stats, **options, loss_weight=w)(logits, batch.labels, draws=draws)["cls"] for w in (1, 2))
    assert two.item() == pytest.approx(2 * one.item())


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("acsl", "rare_keep", 1.5),
        ("balanced_softmax", "form", "tanh"),
        ("class_balanced", "beta", 1.0),
        ("droploss", "low_frequency_share", 0),
        ("efl", "gamma", 0),
        ("eql", "low_frequency", "share"),
        ("eql_softmax", "gamma", 1.1),
        ("eqlv2", "alpha", -1),
        ("federated", "num_classes_kept", 0),
        ("focal", "alpha", 2),
        ("gol", "classifier_weights", "zero"),
        ("gumbel_ce", "largest_loss", 0),
    ],
)
def test_values_out_of_range_are_refused(stats, name, option, value):
    with pytest.raises(ConfigError, match=rf"^loss\.{option}="):
        LOSSES.build(name, stats, **{option: value})
