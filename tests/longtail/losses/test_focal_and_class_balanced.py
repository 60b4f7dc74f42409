"""Focal and class-balanced loss: golden vectors, neutral options, and precision at the ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aegl.longtail.classifiers import build_classifier
from aegl.longtail.losses._focal import FocalForm, focal_losses
from aegl.longtail.losses.class_balanced import ClassBalanced
from aegl.longtail.losses.focal import Focal
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.softmax_ce import SoftmaxCE

BACKGROUND = 6
BASES = ["softmax", "sigmoid", "focal"]


# Golden vectors -------------------------------------------------------------------------------------------------------


def test_golden_focal(golden, stats_of, assert_golden):
    data = golden("focal")

    def make():
        return Focal(stats_of(data), gamma=float(data["gamma"]), alpha=float(data["alpha"]))

    assert_golden(make, data["logits"], data["labels"], data["loss"], data["grad"], 1e-6)
    np.testing.assert_allclose(make().scores(torch.as_tensor(data["logits"])), data["scores"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("index", range(4))
def test_golden_weights_of_class_balanced(golden, stats_of, index):
    data = golden("class_balanced")
    loss = ClassBalanced(stats_of(data), beta=float(data["betas"][index]))
    np.testing.assert_allclose(loss.row_weight[:30], data["weights_normalized"][index], rtol=1e-9)
    assert loss.row_weight[30] == 1


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("softmax_mean", {"base": "softmax"}),
        ("softmax_wmean", {"base": "softmax", "normalization": "sum_of_weights"}),
        ("bce", {"base": "sigmoid"}),
        ("focal", {"base": "focal"}),
    ],
)
def test_golden_class_balanced(golden, stats_of, assert_golden, key, options):
    data = golden("class_balanced")
    pad = ((0, 0), (0, 1)) if options["base"] == "softmax" else ((0, 0), (0, 0))
    # The vectors have no background: a column that the softmax does not see stands in for it.
    logits = np.pad(data["fg_logits"], pad, constant_values=-8192.0)
    grad = np.pad(data[f"{key}_grad"], pad)

    def make():
        return ClassBalanced(stats_of(data), beta=0.9999, gamma=float(data["focal_gamma"]), **options)

    assert_golden(make, logits, data["fg_labels"], data[f"{key}_loss"], grad, 1e-9)


# Relations ------------------------------------------------------------------------------------------------------------


def test_focal_without_focus_is_sigmoid_bce(stats, batch, evaluate):
    loss = Focal(stats, gamma=0.0, alpha=None, normalization="num_proposals")
    value, grad = evaluate(loss, batch.logits, batch.labels)
    expected, expected_grad = evaluate(SigmoidBCE(stats), batch.logits, batch.labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("base", BASES)
def test_class_balanced_with_beta_zero_is_its_base(stats, batch, evaluate, base):
    torch.manual_seed(0)
    logits = torch.cat([batch.logits, torch.randn(40, 1).double()], dim=1)
    plain = {
        "softmax": SoftmaxCE(stats),
        "sigmoid": SigmoidBCE(stats),
        "focal": Focal(stats, gamma=0.5, alpha=None, normalization="num_proposals"),
    }[base]
    loss = ClassBalanced(stats, base=base, beta=0.0)
    assert loss.num_logits == plain.num_logits
    logits = logits[:, : loss.num_logits]
    value, grad = evaluate(loss, logits, batch.labels)
    expected, expected_grad = evaluate(plain, logits, batch.labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)
    torch.testing.assert_close(loss.scores(logits), plain.scores(logits), rtol=0, atol=0)


def test_background_rows_weigh_one(stats, batch, evaluate):
    labels = torch.full((40,), BACKGROUND)
    value, _ = evaluate(ClassBalanced(stats, base="sigmoid"), batch.logits, labels)
    torch.testing.assert_close(value, evaluate(SigmoidBCE(stats), batch.logits, labels)[0])


def test_the_start_of_the_base(stats):
    layer = build_classifier("linear", 8, 6)
    ClassBalanced(stats, base="focal", prior_prob=0.001).init_classifier(layer)
    assert layer.bias.tolist() == pytest.approx([-6.90675] * 6, abs=1e-4)
    layer = build_classifier("linear", 8, 7)
    ClassBalanced(stats).init_classifier(layer)
    assert (layer.bias == 0).all()


# Precision ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, torch.tensor([2.0, 3.5, 10.0], dtype=torch.float64)], ids=str)
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_closed_form_gradient_is_that_of_autograd(gamma, alpha):
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(30, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    targets = torch.rand(30, 3, generator=generator) < 0.4
    losses = focal_losses(logits, targets, gamma, alpha)
    (grad,) = torch.autograd.grad(losses.sum(), logits)
    values = logits.detach()
    negative, positive = (
        FocalForm(gamma, alpha).terms(values, values.sigmoid(), kind, slice(None)) for kind in (False, True)
    )
    for closed, expected, rtol in ((0, losses.detach(), 1e-12), (1, grad, 1e-9)):
        got = torch.where(targets, positive[closed], negative[closed])
        torch.testing.assert_close(got, expected, rtol=rtol, atol=1e-15)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("magnitude", [100.0, 8192.0])
def test_focal_stays_finite_where_probabilities_underflow(gamma, magnitude):
    logits = torch.tensor([[magnitude, -magnitude]] * 2, requires_grad=True)
    targets = torch.tensor([[True, True], [False, False]])
    losses = focal_losses(logits, targets, gamma, None)
    losses.sum().backward()
    assert losses.detach().flatten().tolist() == pytest.approx([0, magnitude, magnitude, 0])
    assert logits.grad.flatten().tolist() == pytest.approx([0, -1, 1, 0])
