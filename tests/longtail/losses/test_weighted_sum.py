"""The fused sum of element-wise losses and its gradient, against autograd through the plain formula."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aegl.longtail import LOSSES
from aegl.longtail.losses import _blocks
from aegl.longtail.losses._activations import ACTIVATIONS
from aegl.longtail.losses._column_sums import sums_by_origin
from aegl.longtail.losses._elementwise import ElementwiseLoss
from aegl.longtail.losses._focal import FocalForm, focal_losses
from aegl.longtail.losses._masks import drawn_below, set_own
from aegl.longtail.losses._weighted_sum import weighted_sum

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
FORMS = ["sigmoid", "gumbel", "focal", "focal_per_class", "autograd"]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_loss")


def forms(name: str, columns: int) -> tuple[Any, Any, Any]:
    """Activation, fused form, plain form."""
    sigmoid = ACTIVATIONS["sigmoid"]
    if name in ("sigmoid", "gumbel"):
        return ACTIVATIONS[name], ACTIVATIONS[name], ACTIVATIONS[name].cross_entropy
    if name == "autograd":
        return sigmoid, sigmoid.cross_entropy, sigmoid.cross_entropy
    gamma: Any = 1.5 if name == "focal" else torch.linspace(0.5, 6, columns, dtype=torch.float64)

    def plain(logits: Tensor, targets: Tensor) -> Tensor:
        own = gamma if name == "focal" else gamma.to(logits.dtype)
        return focal_losses(logits, targets, own, 0.3)

    return sigmoid, FocalForm(gamma, 0.3), plain


def plain_sum(plain: Any, logits: Tensor, labels: Tensor, weights: Tensor | float) -> tuple[Tensor, Tensor]:
    leaf = logits.double().clone().requires_grad_()  # float32 costs the plain form digits
    total = (weights * plain(leaf, labels[:, None] == torch.arange(logits.shape[1]))).sum()
    return total.detach(), torch.autograd.grad(total, leaf)[0]


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 9),
    columns=st.integers(1, 6),
    extra=st.booleans(),
    weighting=st.sampled_from(["none", "elements", "rows", "zeros"]),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
    block=st.sampled_from([1, 7, 2**18]),
    double=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_equals_the_plain_form(name, rows, columns, extra, weighting, scale, block, double, seed):
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    width = columns + extra
    activation, fused, plain = forms(name, width)
    logits = (scale * torch.randn(rows, width, generator=generator)).to(dtype)
    labels = torch.randint(0, columns + 1, (rows,), generator=generator)
    shape = (rows, 1) if weighting == "rows" else (rows, columns)
    weights = None if weighting == "none" else torch.rand(shape, generator=generator).to(dtype)
    if weights is not None and weighting == "zeros":
        weights *= torch.rand(shape, generator=generator) < 0.5
    more = torch.rand(rows, 1, generator=generator).to(dtype) if extra and weights is not None else None
    whole: Any = 1.0
    if weights is not None:
        whole = weights.expand(rows, columns)
        whole = whole if more is None else torch.cat([whole, more], dim=1)
    expected, expected_gradient = plain_sum(plain, logits, labels, whole)
    if more is not None and weights is not None:
        weights = weights.expand(rows, columns)

    leaf = logits.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_blocks, "_CPU_BLOCK", block)
        value, constant = weighted_sum(leaf, activation.probability(logits), labels, fused, weights, more)
    (gradient,) = torch.autograd.grad(value, leaf)
    rtol = 1e-10 if double else 2e-5 if "focal" in name else 5e-6
    assert value.dtype == dtype
    # The cross-entropy of a sure element is 0 to within the rounding of its probability.
    rounding = logits.numel() * torch.finfo(dtype).eps if name in ("sigmoid", "gumbel") else 1e-30
    torch.testing.assert_close(value.detach().double(), expected, rtol=rtol, atol=rounding)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=rtol, atol=1e-12 if double else 1e-7)
    assert torch.equal(gradient, constant)


def test_the_gradient_is_scaled_by_what_comes_from_above_and_can_be_asked_for_twice(batch):
    leaf = batch.logits.clone().requires_grad_()
    sigmoid = ACTIVATIONS["sigmoid"]
    value, constant = weighted_sum(leaf, leaf.detach().sigmoid(), batch.labels, sigmoid)
    first, second = (torch.autograd.grad(3 * value, leaf, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, 3 * constant)
    assert torch.equal(first, second)
    (-2 * value).backward()
    assert torch.equal(leaf.grad, -2 * constant)


def test_differentiating_twice_is_refused(batch):
    leaf = batch.logits.clone().requires_grad_()
    value, _ = weighted_sum(leaf, leaf.detach().sigmoid(), batch.labels, ACTIVATIONS["sigmoid"])
    (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(gradient.sum(), leaf)


@pytest.mark.parametrize("name", FORMS)
def test_extreme_logits_stay_finite_and_keep_their_digits(name):
    activation, fused, plain = forms(name, 2)
    logits = torch.tensor([[1e4, -1e4]] * 3)
    labels = torch.tensor([0, 1, 2])
    leaf = logits.clone().requires_grad_()
    value, _ = weighted_sum(leaf, activation.probability(logits), labels, fused)
    (gradient,) = torch.autograd.grad(value, leaf)
    expected, expected_gradient = plain_sum(plain, logits, labels, 1.0)
    assert value.isfinite() and gradient.isfinite().all()
    torch.testing.assert_close(value.detach().double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-6, atol=1e-12)


def test_a_loss_of_ones_own_needs_its_formula_only(stats, batch, evaluate):
    class Squared(ElementwiseLoss):
        def element_losses(self, logits, targets):
            return (logits.sigmoid() - targets.to(logits.dtype)).square()

    value, gradient = evaluate(Squared(stats), batch.logits, batch.labels)
    plain = Squared(stats).element_losses
    expected, expected_gradient = plain_sum(plain, batch.logits, batch.labels, 1 / 40)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("acsl", {}),
        ("droploss", {}),
        ("efl", {}),
        ("eql", {"activation": "gumbel"}),
        ("eqlv2", {}),
        ("fbs_aegl", {}),
        ("fbs_aegl", {"objectness": True, "normalization": "sum_of_weights"}),
        ("fbs_aegl", {"activation": "gumbel", "normalization": "num_foreground"}),
        ("federated", {"num_classes_kept": 3}),
        ("focal", {}),
        ("gol", {}),
        ("gumbel_ce", {}),
        ("sigmoid_bce", {}),
    ],
    ids=str,
)
def test_whole_losses_equal_their_plain_form(bench, stats, batch, name, options):
    columns = torch.cat([batch.logits, batch.logits[:, :1].roll(1, 0)], dim=1)
    results = []
    for make in (bench.summed, bench.plain_form):
        loss = LOSSES.build(name, stats, **options)
        for seed in range(2):  # the second step weighs by the state of the first
            torch.manual_seed(seed)
            leaf = columns[:, : loss.num_logits].clone().requires_grad_()
            results.append(bench.run(make(loss, batch.labels), leaf))
            if make is bench.plain_form:
                torch.manual_seed(seed)
                loss(leaf, batch.labels)
    for got, expected in zip(results[:2], results[2:], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"objectness": True}, {"activation": "gumbel"}], ids=str)
@pytest.mark.parametrize("name", ["fbs_aegl"])
def test_fbs_aegl_needs_no_more_than_four_buffers(bench, monkeypatch, name, options):
    monkeypatch.setattr(_blocks, "_CPU_BLOCK", 2**12)
    assert _peak(bench, name, options) <= 4.0


@pytest.mark.parametrize("name", ["acsl", "droploss", "efl", "eql", "eqlv2", "federated", "focal", "gol", "gumbel_ce"])
def test_no_elementwise_loss_needs_more_than_four_buffers(bench, monkeypatch, name):
    monkeypatch.setattr(_blocks, "_CPU_BLOCK", 2**12)
    assert _peak(bench, name, {}) <= 4.0


def _peak(bench: ModuleType, name: str, options: dict[str, Any]) -> float:
    """In float32 buffers of the logits' size, gradient included; blocks are made small beside this small matrix."""
    batch = bench.make_batch(256, 400, "cpu", -3.0, 2.0)
    loss = LOSSES.build(name, batch.stats, **options)
    leaf = batch.leaf(loss.num_logits)
    criterion = bench.summed(loss, batch.labels)
    bench.run(criterion, leaf)
    peak: int = bench.peak_bytes(lambda: bench.run(criterion, leaf), "cpu")
    return peak / (4 * leaf.numel())


# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.003, 0.3, 1.0])
def test_draws_are_kept_at_the_rate(rate):
    torch.manual_seed(0)
    kept = drawn_below(torch.tensor(rate, dtype=torch.float64), {}, torch.empty(1000, 500))
    error = 4 * (rate * (1 - rate) / kept.numel()) ** 0.5 + 4 * (1 / 256) / 500**0.5 * (0 < rate < 1)
    assert abs(kept.double().mean().item() - rate) <= error
    assert set(kept.unique().tolist()) <= {0.0, 1.0}
    if 0 < rate < 1:
        rows = kept.double().mean(dim=1).std().item()
        assert rows == pytest.approx((rate * (1 - rate) / 500) ** 0.5, rel=0.15)


def test_rates_of_columns():
    torch.manual_seed(0)
    rates = torch.tensor([0.0, 0.25, 1.0, 0.75], dtype=torch.float64)
    kept = drawn_below(rates, {}, torch.empty(20000, 4, dtype=torch.float64)).mean(dim=0)
    assert kept.tolist() == pytest.approx(rates.tolist(), abs=0.02)
    assert (kept[0], kept[2]) == (0, 1)


def test_set_own_writes_where_there_is_an_own_column():
    values = set_own(torch.zeros(3, 2), torch.tensor([1, 2, 0]), torch.tensor([[5.0], [6.0], [7.0]]))
    assert values.tolist() == [[0, 5], [0, 0], [7, 0]]


def test_sums_by_origin_leave_the_matrix_as_it_is():
    matrix = torch.arange(6.0).view(3, 2)
    sums = sums_by_origin(matrix, torch.tensor([0, 2, 1]))
    assert sums.tolist() == [[0, 5], [4, 1], [2, 3]]
    assert torch.equal(matrix, torch.arange(6.0).view(3, 2))
