"""Classifiers of several branches: what each reads, trains and starts from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from aegl.errors import ConfigError
from aegl.longtail.base import ClassificationLoss
from aegl.longtail.branches import BranchedClassifier, DualClassifier
from aegl.longtail.classifiers import build_classifier, classifier_inputs, output_layers, taken_from_plain_head
from aegl.longtail.losses.forest_rcnn import ForestRcnn
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.simcal import SimCal


def build(kind: Any, loss: ClassificationLoss, width: int = 12, pooled: int = 20) -> torch.nn.Module:
    return build_classifier(kind, width, loss.num_logits, column_groups=loss.column_groups, pooled_features=pooled)


def plain_head(seed: int, width: int = 12, pooled: int = 20, logits: int = 7) -> torch.nn.ModuleDict:
    torch.manual_seed(seed)
    sizes = {"fc1": (pooled, width), "fc2": (width, width), "classifier": (width, logits)}
    return torch.nn.ModuleDict({name: torch.nn.Linear(*size) for name, size in sizes.items()})


def test_only_the_first_branch_trains_what_is_before_it(stats: Any) -> None:
    loss = ForestRcnn(stats, clusters=[2, 3])
    classifier = build("branches", loss)
    first = torch.randn(5, 12, requires_grad=True)
    assert isinstance(classifier, BranchedClassifier) and classifier_inputs(classifier) == ("first",)
    groups = classifier(first).split(loss.column_groups, 1)
    assert [group.shape[1] for group in groups] == [7, 3, 4]
    for branch, group in enumerate(groups):
        grads = torch.autograd.grad(
            group.sum(), [first, *classifier.parameters()], retain_graph=True, allow_unused=True
        )
        assert (grads[0] is not None and bool(grads[0].any())) == (branch == 0)
        trained = {
            n for (n, _), g in zip(classifier.named_parameters(), grads[1:], strict=True) if g is not None and g.any()
        }
        assert trained and {name.split(".")[1] for name in trained} == {str(branch)}


def test_branches_go_with_a_loss_of_one_group(stats: Any) -> None:
    loss = SigmoidBCE(stats)
    classifier = build("branches", loss)
    assert classifier(torch.randn(3, 12)).shape == (3, 6)
    assert len(output_layers(classifier)) == 1


def test_dual_reads_two_kinds_of_features(stats: Any) -> None:
    classifier = build("dual", SimCal(stats))
    assert isinstance(classifier, DualClassifier) and classifier_inputs(classifier) == ("hidden", "pooled")
    hidden, pooled = torch.randn(4, 12, requires_grad=True), torch.randn(4, 20, requires_grad=True)
    original, calibrated = classifier(hidden, pooled).split(7, dim=1)
    for logits, reads in ((original, [True, False]), (calibrated, [False, True])):
        grads = torch.autograd.grad(logits.sum(), [hidden, pooled], retain_graph=True)
        assert [bool(grad.any()) for grad in grads] == reads


def test_dual_needs_two_groups_of_logits(stats: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"box\.classifier=dual: .* this loss has 1; it is meant for loss\.name=simcal"
    ):
        build("dual", SigmoidBCE(stats))


@pytest.mark.parametrize(
    ("kind", "make", "number"), [("branches", ForestRcnn, 3), ("dual", SimCal, 2), ("linear", ForestRcnn, 1)]
)
def test_the_loss_initialises_every_output_layer(stats: Any, kind: str, make: Any, number: int) -> None:
    loss = make(stats)
    classifier = build(kind, loss, width=256)
    layers: Any = output_layers(classifier)
    assert len(layers) == number and sum(layer.out_features for layer in layers) == loss.num_logits
    hidden = [
        p for n, p in classifier.named_parameters() if not any(p is q for layer in layers for q in layer.parameters())
    ]
    before = [p.clone() for p in hidden]
    for layer in layers:
        torch.nn.init.ones_(layer.bias)
        loss.init_classifier(layer)
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.15)
        assert not layer.bias.any()
    assert all(torch.equal(a, b) for a, b in zip(before, hidden, strict=True))


def test_a_prior_reaches_the_outputs(stats: Any) -> None:
    loss = SigmoidBCE(stats, prior_prob=0.01)
    (layer,) = output_layers(build("branches", loss))
    loss.init_classifier(layer)
    assert layer.bias.tolist() == pytest.approx([-4.595] * 6, abs=1e-3)


def taken(classifier: torch.nn.Module, head: torch.nn.ModuleDict) -> set[str]:
    """Load what a classifier takes over; returns the names."""
    state = taken_from_plain_head(classifier, head.state_dict())
    assert not classifier.load_state_dict(state, strict=False).unexpected_keys
    return set(state)


def answer_of(head: torch.nn.ModuleDict, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first = head["fc1"](pooled).relu()
    hidden = head["fc2"](first).relu()
    return first, hidden, head["classifier"](hidden)


def test_the_first_branch_starts_as_the_plain_head_ends(stats: Any) -> None:
    classifier, head, pooled = build("branches", ForestRcnn(stats)), plain_head(1), torch.randn(5, 20)
    assert len(taken(classifier, head)) == 4
    first, _, logits = answer_of(head, pooled)
    torch.testing.assert_close(classifier(first)[:, :7], logits)


def test_both_halves_start_as_the_plain_head_ends(stats: Any) -> None:
    classifier, head, pooled = build("dual", SimCal(stats)), plain_head(1), torch.randn(5, 20)
    assert taken(classifier, head) == set(classifier.state_dict())
    _, hidden, logits = answer_of(head, pooled)
    torch.testing.assert_close(classifier(hidden, pooled), torch.cat([logits, logits], 1))


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_plain_classifiers_take_nothing_over(kind: Any) -> None:
    assert taken_from_plain_head(build_classifier(kind, 12, 7), plain_head(0).state_dict()) == {}
