"""Every option of FBS-AEGL: what it does, and that it is not ignored."""

import pytest
import torch

from aegl.longtail.classifiers import build_classifier
from aegl.longtail.losses.fbs_aegl import FbsAegl
from aegl.longtail.options import option_model

BACKGROUND = 6
LOW = torch.tensor([True, True, True, True, False, False])

# One value per option that must change the loss, its gradient, its classifier's start or its number of logits.
CHANGES = {
    "gamma": {"gamma": 0.9},
    "mu": {"mu": 0.2},
    "foreground_weight": {"foreground_weight": False},
    "background_weight": {"background_weight": False},
    "background_threshold": {"background_threshold": False},
    "weight_factor": {"weight_factor": False},
    "weight_factor_normalization": {"weight_factor_normalization": "mean_one"},
    "activation": {"activation": "gumbel"},
    "bernoulli": {"bernoulli": "literal"},
    "bernoulli_draw": {"bernoulli_draw": "class"},
    "bernoulli_groups": {"bernoulli_groups": "all"},
    "low_frequency": {"low_frequency": "max_instances"},
    "low_frequency_max": {"low_frequency": "max_images", "low_frequency_max": 10},
    "low_frequency_share": {"low_frequency": "image_share", "low_frequency_share": 0.05},
    "normalization": {"normalization": "num_foreground"},
    "loss_weight": {"loss_weight": 2.0},
    "gate_start": {"gate_start": 0.5},
    "gate_columns": {"gate_columns": "low"},
    "foreground_gate": {"foreground_gate": "relative"},
}
# sigma_scope: test_fbs_aegl_distributed.py; empty_foreground: test_fbs_aegl.py; the others below.
TESTED_ELSEWHERE = {"sigma_scope", "empty_foreground", "prior_prob", "objectness"}


def test_every_option_is_tested():
    assert set(CHANGES) | TESTED_ELSEWHERE == set(option_model(FbsAegl).model_fields)


@pytest.mark.parametrize("option", CHANGES)
def test_option_changes_the_gradient(make_stats, batch, value_and_grad, option):
    # Bands put class 4 (many images and instances) among the rare ones, so that every rule for "low" differs.
    stats = make_stats([2, 1, 30, 90, 500, 5000], [0, 0, 1, 1, 1, 2], [2, 1, 20, 60, 90, 3000])

    def gradient(**options):
        torch.manual_seed(0)
        return value_and_grad(FbsAegl(stats, **options), 2 * batch.logits, batch.labels)[1]

    rule = {"low_frequency_max": "max_images", "low_frequency_share": "image_share"}.get(option)
    reference = {"low_frequency": rule} if rule else {}
    torch.testing.assert_close(gradient(**reference), gradient(**reference))
    assert not torch.allclose(gradient(**CHANGES[option]), gradient(**reference))


def test_background_threshold_off_keeps_the_draws(stats, batch, element_weights):
    loss = FbsAegl(stats, background_threshold=False)
    background = batch.labels == BACKGROUND
    weights = element_weights(loss, batch.logits, batch.labels, batch.uniform)[background]
    kept = ~LOW | (batch.uniform[background] < loss.diagnostics["sigma"])
    torch.testing.assert_close(weights, kept * loss.weight_factor)


def test_mean_one_weight_factor(stats):
    plain, scaled = FbsAegl(stats), FbsAegl(stats, weight_factor_normalization="mean_one")
    assert scaled.weight_factor.mean().item() == pytest.approx(1.0)
    torch.testing.assert_close(
        scaled.weight_factor / scaled.weight_factor[5], plain.weight_factor / plain.weight_factor[5]
    )


def test_gates_start_late(stats, batch, element_weights):
    loss = FbsAegl(stats, gate_start=0.25)
    arguments = batch.logits, batch.labels, batch.uniform
    torch.testing.assert_close(element_weights(loss, *arguments), loss.weight_factor.expand(40, 6))
    loss.step_begin(0.25, 1.0)
    torch.testing.assert_close(element_weights(loss, *arguments), element_weights(FbsAegl(stats), *arguments))


def test_rows_switched_off_weigh_one_before_the_gates_start(stats, batch, element_weights):
    loss = FbsAegl(stats, gate_start=1.0, foreground_weight=False)
    weights = element_weights(loss, batch.logits, batch.labels)
    foreground = batch.labels < BACKGROUND
    assert (weights[foreground] == 1).all()
    torch.testing.assert_close(weights[~foreground], loss.weight_factor.expand(int((~foreground).sum()), 6))


def test_gate_columns_low_never_gates_frequent_columns(stats, batch, element_weights):
    gated = element_weights(FbsAegl(stats), batch.logits, batch.labels, batch.uniform)
    loss = FbsAegl(stats, gate_columns="low")
    weights = element_weights(loss, batch.logits, batch.labels, batch.uniform)
    torch.testing.assert_close(weights[:, ~LOW], loss.weight_factor[~LOW].expand(40, 2))
    torch.testing.assert_close(weights[:, LOW], gated[:, LOW])


def test_relative_gate_compares_with_the_true_class(stats, element_weights):
    probabilities = torch.tensor([[0.4, 0.27, 0.281, 0.29, 0.9, 0.1], [0.4, 0.27, 0.281, 0.29, 0.9, 0.1]])
    labels = torch.tensor([0, BACKGROUND])
    loss = FbsAegl(stats, foreground_gate="relative", weight_factor=False)
    weights = element_weights(loss, probabilities.logit(), labels, torch.zeros(2, 6))
    assert weights.tolist() == [[1, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0]]  # from 0.7 * 0.4 = 0.28; background absolute


def test_low_frequency_rules(stats):
    assert FbsAegl(stats).low_frequency.tolist() == [1, 1, 1, 1, 0, 0]
    images = FbsAegl(stats, low_frequency="max_images", low_frequency_max=20)
    assert images.low_frequency.tolist() == [1, 1, 1, 0, 0, 0]
    instances = FbsAegl(stats, low_frequency="max_instances", low_frequency_max=500)
    assert instances.low_frequency.tolist() == [1, 1, 1, 1, 1, 0]


def test_normalization(stats, batch, value_and_grad, element_weights):
    arguments = batch.logits, batch.labels, batch.uniform
    values = {
        rule: value_and_grad(FbsAegl(stats, normalization=rule), *arguments)[0]
        for rule in ("num_proposals", "num_foreground", "sum_of_weights")
    }
    total = 40 * values["num_proposals"]
    num_foreground = int((batch.labels < BACKGROUND).sum())
    assert values["num_foreground"] == pytest.approx(total / num_foreground)
    weights = element_weights(FbsAegl(stats), *arguments).sum().item()
    assert values["sum_of_weights"] == pytest.approx(total / weights)


def test_loss_weight_scales(stats, batch, value_and_grad):
    arguments = batch.logits, batch.labels, batch.uniform
    plain, _ = value_and_grad(FbsAegl(stats), *arguments)
    assert value_and_grad(FbsAegl(stats, loss_weight=2.5), *arguments)[0] == pytest.approx(2.5 * plain)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("activation", ["sigmoid", "gumbel"])
@pytest.mark.parametrize("prior", [0.01, 0.001])
def test_classes_start_at_the_prior(stats, kind, activation, prior):
    loss = FbsAegl(stats, activation=activation, prior_prob=prior, objectness=True)
    layer = build_classifier(kind, 16, loss.num_logits)
    loss.init_classifier(layer)
    logits = layer(torch.zeros(1, 16))
    probabilities = loss.activation.probability(logits)[0]
    assert probabilities[:6].tolist() == pytest.approx([prior] * 6, rel=1e-4)
    assert logits[0, 6] == 0


def test_no_prior_leaves_bias_zero(stats):
    layer = build_classifier("linear", 16, 6)
    torch.nn.init.ones_(layer.bias)
    FbsAegl(stats, prior_prob=None).init_classifier(layer)
    assert (layer.bias == 0).all()


def test_objectness_adds_a_background_column_of_weight_one(stats, batch, value_and_grad):
    loss, plain = FbsAegl(stats, objectness=True), FbsAegl(stats)
    column = torch.linspace(-2, 2, 40, dtype=torch.float64)[:, None]
    logits = torch.cat([batch.logits, column], dim=1)
    _, grad = value_and_grad(loss, logits, batch.labels, batch.uniform)
    _, plain_grad = value_and_grad(plain, batch.logits, batch.labels, batch.uniform)
    torch.testing.assert_close(grad[:, :6], plain_grad)
    torch.testing.assert_close(grad[:, 6], (column[:, 0].sigmoid() - (batch.labels == BACKGROUND).double()) / 40)
    torch.testing.assert_close(loss.scores(logits), batch.logits.sigmoid() * (1 - column.sigmoid()))
