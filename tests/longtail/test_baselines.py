"""Options and limits of softmax and sigmoid cross-entropy that the golden vectors do not cover."""

import pytest
import torch

from aegl.longtail.classifiers import build_classifier
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.softmax_ce import SoftmaxCE


@pytest.mark.parametrize("loss_type", [SoftmaxCE, SigmoidBCE])
def test_loss_weight_scales(stats, batch, value_and_grad, loss_type):
    logits = torch.randn(40, loss_type(stats).num_logits, generator=torch.Generator().manual_seed(0))
    plain, _ = value_and_grad(loss_type(stats), logits, batch.labels)
    assert value_and_grad(loss_type(stats, loss_weight=0.5), logits, batch.labels)[0] == pytest.approx(0.5 * plain)


@pytest.mark.parametrize(("prior", "bias"), [(0.01, -4.59512), (0.001, -6.90675), (None, 0.0)])
def test_prior_of_sigmoid(stats, prior, bias):
    layer = build_classifier("linear", 8, 6)
    SigmoidBCE(stats, prior_prob=prior).init_classifier(layer)
    assert layer.bias.tolist() == pytest.approx([bias] * 6, abs=1e-4)


def test_background_row_of_sigmoid_pushes_every_class_down(stats, value_and_grad):
    value, grad = value_and_grad(SigmoidBCE(stats), torch.zeros(1, 6), torch.tensor([6]))
    assert value == pytest.approx(6 * 0.693147, rel=1e-5)
    assert (grad == 0.5).all()


def test_softmax_scores_leave_background_out(stats):
    loss = SoftmaxCE(stats)
    scores = loss.scores(torch.tensor([[0.0, 0, 0, 0, 0, 0, 50.0]], dtype=torch.bfloat16))
    assert scores.shape == (1, 6)
    assert scores.dtype == torch.float32
    assert scores.max() < 1e-12


def test_tiny_terms_keep_their_digits_in_float32(stats, value_and_grad):
    """At z = -30 the naive form (1 - t) z - log sigmoid(z) gives 0 with a gradient of 0."""
    value, grad = value_and_grad(SigmoidBCE(stats), torch.full((1, 6), -30.0), torch.tensor([6]))
    assert value == pytest.approx(6 * 9.3576e-14, rel=1e-4)
    assert grad[0, 0].item() == pytest.approx(9.3576e-14, rel=1e-4)
