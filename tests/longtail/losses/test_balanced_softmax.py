"""Balanced softmax in both forms: golden vectors, equal counts, and what background gets."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from aegl.longtail.classifiers import build_classifier
from aegl.longtail.losses.balanced_softmax import BalancedSoftmax
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.softmax_ce import SoftmaxCE


def test_golden_softmax(golden, stats_of, assert_golden):
    data = golden("balanced_softmax")
    logits = np.pad(data["softmax_logits"], ((0, 0), (0, 1)), constant_values=-8192.0)
    grad = np.pad(data["softmax_grad"], ((0, 0), (0, 1)))
    arguments = logits, data["softmax_labels"], data["softmax_loss"], grad
    assert_golden(lambda: BalancedSoftmax(stats_of(data)), *arguments, 1e-9)


def test_golden_sigmoid(golden, stats_of, assert_golden):
    data = golden("balanced_softmax")

    def make():
        return BalancedSoftmax(stats_of(data), form="sigmoid")

    arguments = data["sigmoid_logits"], data["labels"], data["sigmoid_loss"], data["sigmoid_grad"]
    assert_golden(make, *arguments, 1e-9)
    scores = make().scores(torch.as_tensor(data["sigmoid_logits"]))
    np.testing.assert_allclose(scores, data["sigmoid_scores"], rtol=0, atol=1e-6)


def test_equal_counts_are_softmax_cross_entropy(make_stats, batch, evaluate):
    stats = make_stats([40] * 6, [2] * 6)
    logits = torch.cat([batch.logits, batch.logits[:, :1]], dim=1)
    value, grad = evaluate(BalancedSoftmax(stats), logits, batch.labels)
    expected, expected_grad = evaluate(SoftmaxCE(stats), logits, batch.labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_foreground_keeps_its_share_of_the_softmax(stats):
    """Shifts of log(n_i / mean n) weigh the classes by n_i and leave background against their sum as it was."""
    shift = BalancedSoftmax(stats).shift
    assert shift[:6].exp().mean().item() == pytest.approx(1.0)
    assert shift[6] == 0
    assert (shift[5] - shift[0]).item() == pytest.approx(math.log(5000 / 2))


def test_sigmoid_form_leaves_background_rows(stats, batch, evaluate):
    background = batch.labels == 6
    _, grad = evaluate(BalancedSoftmax(stats, form="sigmoid"), batch.logits, batch.labels)
    _, plain = evaluate(SigmoidBCE(stats), batch.logits, batch.labels)
    assert torch.equal(grad[background], plain[background])
    assert not torch.isclose(grad[~background], plain[~background]).any()


def test_shifts_are_finite_for_a_class_in_no_image_and_one_in_all(stats):
    stats = dataclasses.replace(stats, num_images=3000)  # class 1 is in none of them, class 5 in each
    shift = BalancedSoftmax(stats, form="sigmoid").shift
    assert shift.isfinite().all()
    assert shift[5].item() == pytest.approx(math.log(3000))
    assert shift[1].item() == pytest.approx(-math.log(3000))


@pytest.mark.parametrize(("form", "columns", "bias"), [("softmax", 7, 0.0), ("sigmoid", 6, -6.90675)])
def test_start_and_scores_are_those_of_the_form(stats, form, columns, bias):
    loss = BalancedSoftmax(stats, form=form)
    layer = build_classifier("linear", 8, columns)
    loss.init_classifier(layer)
    assert loss.num_logits == columns
    assert layer.bias.tolist() == pytest.approx([bias] * columns, abs=1e-4)
    logits = torch.randn(3, columns)
    plain = SoftmaxCE(stats) if form == "softmax" else SigmoidBCE(stats)
    assert torch.equal(loss.scores(logits), plain.scores(logits))
