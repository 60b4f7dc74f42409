"""FBS-AEGL beyond the golden vectors: limits, relations to other losses, draws, degenerate batches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.longtail.classifiers import build_classifier
from aegl.longtail.losses.fbs_aegl import FbsAegl
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.softmax_ce import SoftmaxCE

BACKGROUND = 6
LOW = torch.tensor([True, True, True, True, False, False])

PROPERTY = settings(max_examples=40, deadline=None)


@st.composite
def batches(draw):
    """Rows of the six-class problem: any size, any mix of foreground and background, small and huge logits."""
    rows = draw(st.integers(0, 8))
    labels = draw(st.lists(st.integers(0, BACKGROUND), min_size=rows, max_size=rows))
    values = st.floats(-100, 100, allow_nan=False)
    logits = draw(st.lists(values, min_size=rows * 6, max_size=rows * 6))
    seed = draw(st.integers(0, 2**16))
    uniform = torch.rand(rows, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.tensor(logits, dtype=torch.float64).reshape(rows, 6), torch.tensor(labels, dtype=torch.int64), uniform


# Relations ------------------------------------------------------------------------------------------------------------


def test_everything_off_is_sigmoid_bce(stats, batch, value_and_grad):
    loss = FbsAegl(stats, foreground_weight=False, background_weight=False, weight_factor=False)
    value, grad = value_and_grad(loss, batch.logits, batch.labels)
    expected, expected_grad = value_and_grad(SigmoidBCE(stats), batch.logits, batch.labels)
    assert value == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(grad, expected_grad)


def test_mu_zero_and_sigma_one_is_sigmoid_bce(stats, batch, value_and_grad):
    labels = batch.labels.where((batch.labels < 4) | (batch.labels == BACKGROUND), 0)  # only low-frequency foreground
    value, grad = value_and_grad(FbsAegl(stats, mu=0.0, weight_factor=False), batch.logits, labels)
    expected, expected_grad = value_and_grad(SigmoidBCE(stats), batch.logits, labels)
    assert value == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(grad, expected_grad)


def test_mu_above_one_leaves_only_positive_terms(stats, batch, value_and_grad):
    value, grad = value_and_grad(FbsAegl(stats, mu=1.01, weight_factor=False), batch.logits, batch.labels)
    foreground = batch.labels < BACKGROUND
    own = batch.logits[foreground, batch.labels[foreground]]
    assert value == pytest.approx((torch.nn.functional.softplus(-own).sum() / 40).item(), rel=1e-9)
    assert (grad != 0).sum() == foreground.sum()


def test_relation_to_droploss(oracles, make_stats, value_and_grad, element_weights):
    with np.load(oracles / "droploss.npz") as archive:
        data = dict(archive)
    stats = make_stats(data["instance_counts"], data["freq_group"], data["image_counts"])
    arguments = data["logits"], data["labels"], data["keep_uniform"]
    background = data["labels"] == 30

    ungated = element_weights(FbsAegl(stats, mu=0.0, weight_factor=False), *arguments)
    np.testing.assert_array_equal(ungated[background], data["weights"][background])
    assert (ungated[~background] == 1).all()
    assert (data["weights"][~background] == 0).any()

    # Closing the gate on low-frequency foreground columns for good, and on background never, is DropLoss itself.
    droploss = FbsAegl(stats, mu=1.01, weight_factor=False, gate_columns="low", background_threshold=False)
    value, grad = value_and_grad(droploss, *arguments)
    assert value == pytest.approx(float(data["loss"]), rel=1e-6)
    np.testing.assert_allclose(grad, data["grad"], rtol=1e-6, atol=1e-9)


@PROPERTY
@given(
    data=batches(),
    mu=st.sampled_from([0.0, 0.3, 0.7]),
    gamma=st.sampled_from([0.0, 0.7, 0.99]),
    gate=st.sampled_from(["absolute", "relative"]),
)
def test_gradient_is_weight_times_error(stats, value_and_grad, element_weights, data, mu, gamma, gate):
    logits, labels, uniform = data
    loss = FbsAegl(stats, mu=mu, gamma=gamma, foreground_gate=gate)
    value, grad = value_and_grad(loss, logits, labels, uniform)
    weights = element_weights(loss, logits, labels, uniform)
    targets = (labels[:, None] == torch.arange(6)).double()
    torch.testing.assert_close(
        grad, weights * (logits.sigmoid() - targets) / max(len(labels), 1), rtol=1e-9, atol=1e-12
    )
    assert math.isfinite(value)
    assert value >= 0


@PROPERTY
@given(data=batches(), seed=st.integers(0, 99), activation=st.sampled_from(["sigmoid", "gumbel"]))
def test_order_of_rows_does_not_matter(stats, value_and_grad, data, seed, activation):
    logits, labels, uniform = data
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    loss = FbsAegl(stats, activation=activation)
    value, grad = value_and_grad(loss, logits, labels, uniform)
    shuffled, shuffled_grad = value_and_grad(loss, logits[order], labels[order], uniform[order])
    assert shuffled == pytest.approx(value, rel=1e-9, abs=1e-12)
    torch.testing.assert_close(shuffled_grad, grad[order])


# Degenerate input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["empty", "no_foreground", "no_background", "huge", "all_huge_wrong"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    "make",
    [
        SoftmaxCE,
        SigmoidBCE,
        FbsAegl,
        lambda stats: FbsAegl(stats, activation="gumbel", objectness=True, normalization="sum_of_weights"),
        lambda stats: FbsAegl(stats, foreground_gate="relative", bernoulli="literal", normalization="num_foreground"),
    ],
    ids=["softmax_ce", "sigmoid_bce", "fbs_aegl", "fbs_aegl-gumbel", "fbs_aegl-relative"],
)
def test_degenerate_batches_stay_finite_and_connected(stats, make, dtype, kind):
    loss = make(stats)
    rows = 0 if kind == "empty" else 14
    labels = torch.arange(rows) % 7
    if kind == "no_foreground":
        labels = torch.full((rows,), BACKGROUND)
    if kind == "no_background":
        labels = labels % 6
    logits = torch.randn(rows, loss.num_logits, generator=torch.Generator().manual_seed(0)).to(dtype)
    if kind == "huge":
        logits = 100 * logits.sign()
    if kind == "all_huge_wrong":
        logits = torch.full_like(logits, 100.0)
        logits[torch.arange(rows), labels.clamp(max=loss.num_logits - 1)] = -100.0
    logits.requires_grad_()
    total = loss(logits, labels)["cls"]
    total.backward()
    assert total.dtype == torch.float32
    assert torch.isfinite(total)
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(loss.scores(logits.detach())).all()
    if kind == "empty":
        assert total.item() == 0
    assert all(torch.isfinite(value) for value in loss.diagnostics.values())


def test_autocast_does_not_reach_the_loss(stats, batch):
    seen = []

    class Recorder(FbsAegl):
        def element_weights(self, probabilities, labels, draws):
            seen.append((torch.is_autocast_enabled("cpu"), probabilities.dtype, torch.is_grad_enabled()))
            return super().element_weights(probabilities, labels, draws)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = Recorder(stats)(batch.logits.bfloat16(), batch.labels)["cls"]
    assert seen == [(False, torch.float32, False)]
    assert value.dtype == torch.float32


def test_weight_factor_at_the_ends_of_gamma(stats):
    counts = torch.tensor([2, 1, 30, 90, 500, 5000]).double()  # the absent class counts as one instance
    torch.testing.assert_close(FbsAegl(stats, gamma=0.0).weight_factor, torch.ones(6).double())
    torch.testing.assert_close(FbsAegl(stats, gamma=1 - 1e-12).weight_factor, 1 / counts, rtol=1e-3, atol=0)
    torch.testing.assert_close(FbsAegl(stats).weight_factor, 0.3 / (1 - 0.7**counts))


def test_worked_example_of_the_paper(make_stats):
    factor = FbsAegl(make_stats([2, 5, 5], [0, 2, 2])).weight_factor
    assert factor.tolist() == pytest.approx([0.588235, 0.360607, 0.360607], abs=1e-6)


# Draws ----------------------------------------------------------------------------------------------------------------


def background_batch(rows=4000):
    """Three quarters background; the foreground holds 30 % low-frequency labels. All logits 0."""
    labels = torch.full((rows,), BACKGROUND)
    labels[: rows // 4] = 5
    labels[: int(0.3 * rows / 4)] = 0
    return torch.zeros(rows, 6), labels


@pytest.mark.parametrize(("bernoulli", "rate"), [("uniform", 0.3), ("literal", 0.7)])
def test_keep_rate_is_sigma(stats, element_weights, bernoulli, rate):
    torch.manual_seed(0)
    logits, labels = background_batch()
    kept = element_weights(FbsAegl(stats, mu=0.0, bernoulli=bernoulli), logits, labels)[1000:] > 0
    assert kept[:, ~LOW].all()
    standard_error = math.sqrt(rate * (1 - rate) / kept[:, LOW].numel())
    assert abs(kept[:, LOW].double().mean().item() - rate) < 3 * standard_error
    assert kept[:, LOW].any(dim=1).double().mean() > 0.5  # one draw per proposal and class, not one per class


def test_frequent_classes_are_kept_at_one_minus_sigma_with_all_groups(stats, element_weights):
    torch.manual_seed(0)
    logits, labels = background_batch()
    kept = element_weights(FbsAegl(stats, mu=0.0, bernoulli_groups="all"), logits, labels)[1000:] > 0
    assert kept[:, ~LOW].double().mean().item() == pytest.approx(0.7, abs=0.02)
    assert kept[:, LOW].double().mean().item() == pytest.approx(0.3, abs=0.02)


def test_one_draw_per_class_is_shared_by_all_rows(stats, element_weights):
    torch.manual_seed(1)
    logits, labels = background_batch(400)
    kept = element_weights(FbsAegl(stats, mu=0.0, bernoulli_draw="class"), logits, labels)[100:] > 0
    assert (kept == kept[0]).all()
    assert kept[0, LOW].any() != kept[0, LOW].all()


@pytest.mark.parametrize(
    ("label", "bernoulli", "kept"),
    [(0, "uniform", True), (5, "uniform", False), (0, "literal", False), (5, "literal", False)],
)
def test_sigma_at_its_ends(stats, element_weights, label, bernoulli, kept):
    labels = torch.tensor([label] + [BACKGROUND] * 50)
    weights = element_weights(FbsAegl(stats, mu=0.0, bernoulli=bernoulli), torch.zeros(51, 6), labels)[1:]
    assert ((weights[:, LOW] > 0) == kept).all()
    assert (weights[:, ~LOW] > 0).all()


@pytest.mark.parametrize("bernoulli", ["uniform", "literal"])
@pytest.mark.parametrize(("choice", "kept"), [("keep", True), ("drop", False)])
def test_batch_without_foreground(stats, element_weights, bernoulli, choice, kept):
    loss = FbsAegl(stats, mu=0.0, empty_foreground=choice, bernoulli=bernoulli)
    weights = element_weights(loss, torch.zeros(9, 6), torch.full((9,), BACKGROUND))
    assert ((weights[:, LOW] > 0) == kept).all()
    assert (weights[:, ~LOW] > 0).all()


# What others rely on --------------------------------------------------------------------------------------------------


def test_diagnostics_count_active_negatives(stats, batch, element_weights):
    loss = FbsAegl(stats)
    loss(batch.logits.requires_grad_(False), batch.labels, draws={"uniform": batch.uniform})
    weights = element_weights(loss, batch.logits, batch.labels, batch.uniform)
    negative = batch.labels[:, None] != torch.arange(6)
    for rows, key in [(batch.labels < 6, "foreground"), (batch.labels == 6, "background")]:
        expected = (weights[rows][negative[rows]] > 0).double().mean().item()
        assert loss.diagnostics[f"active_negatives_{key}"].item() == pytest.approx(expected)
        assert not loss.diagnostics[f"active_negatives_{key}"].requires_grad


def test_no_negative_acts_at_the_start(stats):
    loss = FbsAegl(stats)
    layer = build_classifier("linear", 16, loss.num_logits)
    loss.init_classifier(layer)
    loss(layer(torch.randn(30, 16)), torch.arange(30) % 7)
    assert loss.diagnostics["active_negatives_foreground"] == loss.diagnostics["active_negatives_background"] == 0


class _Scores(torch.nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, logits):
        return self.loss.scores(logits)


@pytest.mark.parametrize("make", [SoftmaxCE, SigmoidBCE, lambda stats: FbsAegl(stats, objectness=True)])
def test_scores_can_be_exported_and_hold_nothing_of_training(stats, make):
    loss = make(stats)
    logits = torch.randn(2, 5, loss.num_logits)
    exported = torch.export.export(_Scores(loss), (logits,))
    torch.testing.assert_close(exported.module()(logits), loss.scores(logits))
    assert loss.scores(logits).shape == (2, 5, 6)
    assert loss.state_dict() == {}
    assert not [node for node in exported.graph.nodes if node.name.startswith("b_") and node.users]


def test_mu_may_be_an_integer(stats, batch):
    values = [
        FbsAegl(stats, mu=mu)(batch.logits, batch.labels, draws={"uniform": batch.uniform})["cls"] for mu in (1, 1.0)
    ]
    assert torch.equal(*values)
