"""Federated loss: golden vector, and the draw of classes without replacement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.longtail.losses.federated import Federated
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE


def draws_that_select(selected, num_classes):
    """Draws for which these classes come first, whatever the weights."""
    uniform = np.full(num_classes, 1 - 1e-9)
    uniform[selected[selected < num_classes]] = 1e-9
    return uniform


def test_golden(golden, stats_of, assert_golden, evaluate):
    data = golden("federated")
    assert (data["grad"][:, 30] == 0).all()  # the reference's unused column, which is left out here
    uniform = draws_that_select(data["selected"], 30)

    def make():
        return Federated(stats_of(data), num_classes_kept=int(data["num_classes_kept"]))

    np.testing.assert_allclose(make().draw_weight, data["class_weights"], rtol=1e-12)
    arguments = data["logits"][:, :30], data["labels"], data["loss"], data["grad"][:, :30]
    assert_golden(make, *arguments, 1e-9, class_uniform=uniform)
    _, grad = evaluate(make(), *arguments[:2], class_uniform=uniform)
    np.testing.assert_array_equal((grad != 0).any(dim=0), data["class_mask"] > 0)


def kept(loss, labels, uniform=None):
    labels = torch.as_tensor(labels, dtype=torch.int64)
    draws = {} if uniform is None else {"class_uniform": uniform}
    positive = labels[:, None] == torch.arange(loss.num_classes)
    weights = loss.element_weights(positive.double(), labels, draws)
    assert (weights == weights[0]).all()
    return weights[0] > 0


def test_places_beyond_all_classes_is_sigmoid_bce(stats, batch, evaluate, make_stats):
    stats = make_stats([5] * 6, [0] * 6)
    value, grad = evaluate(Federated(stats, num_classes_kept=7), batch.logits, batch.labels)
    expected, expected_grad = evaluate(SigmoidBCE(stats), batch.logits, batch.labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=12), places=st.integers(1, 9), seed=st.integers(0, 999))
def test_labels_are_kept_and_the_other_places_filled(stats, labels, places, seed):
    uniform = torch.rand(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mask = kept(Federated(stats, num_classes_kept=places), labels, uniform)
    present = set(labels)
    assert all(mask[label] for label in present if label < 6)
    absent_from_training = {1} - present  # class 1 has no image
    drawable = 6 - len(present - {6}) - len(absent_from_training)
    drawn = mask.sum().item() - len(present - {6})
    assert drawn == min(max(places - len(present), 0), drawable)


def test_classes_are_drawn_in_proportion_to_the_root_of_their_images(make_stats):
    torch.manual_seed(0)
    loss = Federated(make_stats([1, 4, 25, 64], [0] * 4), num_classes_kept=2)
    counts = sum(kept(loss, [4]).double() for _ in range(4000))  # background takes one of the two places
    np.testing.assert_allclose(counts / 4000, np.array([1, 2, 5, 8]) / 16, atol=0.025)


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_a_class_without_image_is_never_drawn(make_stats, power):
    loss = Federated(make_stats([3, 0, 3], [0] * 3), power=power)
    assert kept(loss, [3]).tolist() == [True, False, True]
    assert kept(loss, [1]).tolist() == [True, True, True]
