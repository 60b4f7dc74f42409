"""EQL, SEQL, DropLoss, GOL and Gumbel cross-entropy: golden vectors, and how they follow from simpler losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from aegl.longtail.classifiers import build_classifier
from aegl.longtail.losses.droploss import DropLoss
from aegl.longtail.losses.eql import Eql
from aegl.longtail.losses.eql_softmax import EqlSoftmax
from aegl.longtail.losses.gol import Gol
from aegl.longtail.losses.gumbel_ce import GumbelCE
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.softmax_ce import SoftmaxCE

BACKGROUND = 6
LOW = torch.tensor([True, True, True, True, False, False])
SHARE = {"low_frequency": "image_share"}
DROPPING = [DropLoss, Gol]


def hidden_background(logits):
    """With a background column that no softmax sees."""
    return np.pad(logits, ((0, 0), (0, 1)), constant_values=-8192.0)


# Golden vectors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_share", [False, True], ids=["bands", "lambda"])
@pytest.mark.parametrize("loss_type", [Eql, DropLoss])
def test_golden(golden, stats_of, assert_golden, element_weights, loss_type, by_share):
    data = golden("eql" if loss_type is Eql else "droploss")
    options = {**SHARE, "low_frequency_share": float(data["lambda_"])} if by_share else {}

    def make():
        return loss_type(stats_of(data), **options)

    draws = {} if loss_type is Eql else {"uniform": data["keep_uniform"]}
    assert_golden(make, data["logits"], data["labels"], data["loss"], data["grad"], 1e-9, **draws)
    weights = element_weights(make(), data["logits"], data["labels"], draws.get("uniform"))
    np.testing.assert_array_equal(weights, data["weights"])
    np.testing.assert_allclose(make().scores(torch.as_tensor(data["logits"])), data["scores"], rtol=0, atol=1e-6)


def test_golden_droploss_ratio_and_batch_without_foreground(golden, stats_of, evaluate):
    data = golden("droploss")
    loss = DropLoss(stats_of(data))
    evaluate(loss, data["logits"], data["labels"])
    assert loss.diagnostics["sigma"].item() == pytest.approx(float(data["keep_ratio"]), rel=1e-12)
    value, _ = evaluate(loss, data["logits"], np.full(64, 30), uniform=data["keep_uniform"])
    assert value.item() == pytest.approx(float(data["allbg_loss"]), rel=1e-9)


def test_golden_softmax_eql(golden, stats_of, assert_golden):
    data = golden("eql")
    logits, grad = hidden_background(data["softmax_logits"]), np.pad(data["softmax_grad"], ((0, 0), (0, 1)))
    uniform = np.where(data["softmax_beta"], 0.0, 0.999)
    gamma = float(data["softmax_gamma"])
    assert gamma == EqlSoftmax(stats_of(data)).gamma
    arguments = logits, data["softmax_labels"], data["softmax_loss"], grad
    assert_golden(lambda: EqlSoftmax(stats_of(data)), *arguments, 1e-9, uniform=uniform)


def test_golden_gol(golden, stats_of, assert_golden, element_weights):
    data = golden("gol")

    def make():
        return Gol(stats_of(data), **SHARE, low_frequency_share=float(data["lambda_"]))

    arguments = data["gol_logits"], data["labels"], data["gol_loss"], data["gol_grad"]
    assert_golden(make, *arguments, 1e-6, uniform=data["keep_uniform"])
    weights = element_weights(make(), data["gol_logits"], data["labels"], data["keep_uniform"])
    np.testing.assert_array_equal(weights, data["gol_weights"])
    np.testing.assert_allclose(make().scores(torch.as_tensor(data["gol_logits"])), data["gol_scores"], atol=1e-6)


def test_golden_gumbel_cross_entropy(golden, stats_of, assert_golden):
    data = golden("gol")
    arguments = data["gumbel_logits"], data["labels"], data["gumbel_loss"], data["gumbel_grad"]
    assert_golden(lambda: GumbelCE(stats_of(data)), *arguments, 1e-6)
    scores = GumbelCE(stats_of(data)).scores(torch.as_tensor(data["gumbel_logits"]))
    assert scores.shape == (64, 30)
    np.testing.assert_allclose(scores, data["gumbel_scores"], atol=1e-6)


# Relations ------------------------------------------------------------------------------------------------------------


def test_eql_spares_low_frequency_classes_on_foreground_rows_only(stats, batch, evaluate):
    _, grad = evaluate(Eql(stats), batch.logits, batch.labels)
    _, plain = evaluate(SigmoidBCE(stats), batch.logits, batch.labels)
    own = batch.labels[:, None] == torch.arange(6)
    spared = (batch.labels < BACKGROUND)[:, None] & LOW & ~own
    assert spared.any()
    assert (grad[spared] == 0).all()
    torch.testing.assert_close(grad[~spared], plain[~spared], rtol=0, atol=0)


@pytest.mark.parametrize("loss_type", [Eql, DropLoss])
def test_without_low_frequency_classes_it_is_sigmoid_bce(make_stats, batch, evaluate, loss_type):
    stats = make_stats([500] * 6, [2] * 6)
    value, grad = evaluate(loss_type(stats), batch.logits, batch.labels)
    expected, expected_grad = evaluate(SigmoidBCE(stats), batch.logits, batch.labels)
    assert torch.equal(value, expected)
    assert torch.equal(grad, expected_grad)


@pytest.mark.parametrize("loss_type", DROPPING)
@pytest.mark.parametrize(("label", "kept"), [(0, True), (5, False)])
def test_background_rows_at_the_ends_of_the_ratio(stats, element_weights, loss_type, label, kept):
    labels = torch.tensor([label] + [BACKGROUND] * 30)
    weights = element_weights(loss_type(stats), torch.zeros(31, 6), labels)[1:]
    assert (weights[:, LOW] == float(kept)).all()
    assert (weights[:, ~LOW] == 1).all()


@pytest.mark.parametrize("loss_type", DROPPING)
def test_background_terms_are_kept_at_the_ratio(stats, element_weights, loss_type):
    torch.manual_seed(0)
    labels = torch.full((4000,), BACKGROUND)
    labels[:1000] = 5
    labels[:300] = 0
    kept = element_weights(loss_type(stats), torch.zeros(4000, 6), labels)[1000:, LOW]
    standard_error = math.sqrt(0.3 * 0.7 / kept.numel())
    assert abs(kept.mean().item() - 0.3) < 3 * standard_error
    assert kept.any(dim=1).double().mean() > 0.5  # one draw per element, not one per class


def test_gol_has_the_weights_of_droploss(stats, batch, element_weights):
    arguments = batch.logits, batch.labels, batch.uniform
    assert torch.equal(element_weights(Gol(stats), *arguments), element_weights(DropLoss(stats), *arguments))


def test_eql_with_gumbel_has_the_foreground_of_gol(stats, batch, evaluate):
    foreground = batch.labels < BACKGROUND
    arguments = batch.logits[foreground], batch.labels[foreground]
    value, grad = evaluate(Eql(stats, activation="gumbel"), *arguments)
    expected, expected_grad = evaluate(Gol(stats), *arguments)
    assert torch.equal(value, expected)
    assert torch.equal(grad, expected_grad)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_softmax_eql_at_the_ends_of_gamma(stats, batch, evaluate, gamma):
    torch.manual_seed(0)
    logits = torch.cat([batch.logits, torch.randn(40, 1).double()], dim=1)
    value, grad = evaluate(EqlSoftmax(stats, gamma=gamma), logits, batch.labels, uniform=batch.uniform)
    own = batch.labels[:, None] == torch.arange(7)
    left_out = torch.nn.functional.pad(LOW, (0, 1)) & ~own & (batch.labels < BACKGROUND)[:, None] & (gamma == 1)
    expected, expected_grad = evaluate(SoftmaxCE(stats), logits.masked_fill(left_out, -1e4), batch.labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_softmax_eql_draws_per_row_and_class(stats):
    torch.manual_seed(0)
    logits = torch.zeros(3000, 7, dtype=torch.float64, requires_grad=True)
    EqlSoftmax(stats)(logits, torch.full((3000,), 5))["cls"].backward()
    left_out = logits.grad[:, :4] == 0
    assert left_out.double().mean().item() == pytest.approx(0.9, abs=0.01)
    assert left_out.all(dim=1).double().mean().item() == pytest.approx(0.9**4, abs=0.03)


def test_gumbel_cross_entropy_beyond_its_largest_loss_has_no_gradient(stats, evaluate):
    logits, labels = torch.full((3, 7), -3.5), torch.tensor([0, 1, 6])
    value, grad = evaluate(GumbelCE(stats), logits, labels)
    assert value == 20
    assert (grad == 0).all()
    value, grad = evaluate(GumbelCE(stats, largest_loss=None, loss_weight=2.0), logits, labels)
    assert value.item() == pytest.approx(2 * math.exp(3.5), rel=1e-5)
    assert (grad[torch.arange(3), labels] < 0).all()


# Start ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss_type", [Gol, GumbelCE])
def test_gumbel_losses_start_at_bias_minus_two(stats, loss_type):
    loss = loss_type(stats)
    layer = build_classifier("linear", 64, loss.num_logits)
    torch.manual_seed(0)
    loss.init_classifier(layer)
    assert (layer.bias == -2).all()
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.15)
    assert loss.scores(layer.bias).tolist() == pytest.approx([6.18e-4] * 6, rel=1e-3)
    loss_type(stats, classifier_weights="constant", classifier_bias=-1.0).init_classifier(layer)
    assert (layer.weight == 0.001).all()
    assert (layer.bias == -1).all()


def test_gumbel_cross_entropy_starts_below_its_largest_loss_with_the_classes_of_lvis(make_stats, evaluate):
    loss = GumbelCE(make_stats([5] * 1203, [1] * 1203))
    layer = build_classifier("linear", 8, loss.num_logits)
    loss.init_classifier(layer)
    with torch.no_grad():
        logits = layer(torch.randn(20, 8))
    value, grad = evaluate(loss, logits, torch.arange(20))
    assert value < 20
    assert grad.any()


# What is low-frequency ------------------------------------------------------------------------------------------------


def test_low_frequency_by_share_of_images(make_stats):
    stats = make_stats([9, 9, 9, 9], [0, 0, 0, 2], [10, 19, 20, 951])  # 1000 images
    assert Eql(stats).low_frequency.tolist() == [True, True, True, False]
    loss = Eql(stats, low_frequency="image_share", low_frequency_share=0.02)
    assert loss.low_frequency.tolist() == [True, True, False, False]


@pytest.mark.parametrize("loss_type", [Eql, EqlSoftmax, DropLoss, Gol])
def test_every_rule_of_low_frequency_reaches_the_loss(make_stats, loss_type):
    stats = make_stats([5, 50, 500], [2, 0, 0], [5, 40, 400])
    low = [
        loss_type(stats).low_frequency.tolist(),
        loss_type(stats, low_frequency="max_images", low_frequency_max=40).low_frequency.tolist(),
        loss_type(stats, low_frequency="max_instances", low_frequency_max=40).low_frequency.tolist(),
        loss_type(stats, low_frequency="image_share", low_frequency_share=0.5).low_frequency.tolist(),
    ]
    assert low == [[False, True, True], [True, True, False], [True, False, False], [True, True, False]]
