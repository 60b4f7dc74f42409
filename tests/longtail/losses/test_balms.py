"""BALMS: the learnt class weights against a meta step written out with second derivatives, and what is remembered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from aegl.errors import ConfigError
from aegl.longtail import LOSSES
from aegl.longtail.base import HIDDEN, Rows
from aegl.longtail.classifiers import CosineLinear
from aegl.longtail.losses.balanced_softmax import BalancedSoftmax
from aegl.longtail.losses.balms import Balms

CLASSES, WIDTH = 6, 5
CLASSIFIERS = {
    "linear": lambda: nn.Linear(WIDTH, CLASSES).double(),
    "cosine": lambda: CosineLinear(WIDTH, CLASSES, temperature=3).double(),
}


def make_rows(classifier: nn.Module, count: int = 40, seed: int = 0, remembered: bool = False) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    dtype = next(classifier.parameters()).dtype
    features = torch.randn(count, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, CLASSES + 1, (count,), generator=generator)
    instance = torch.where(labels < CLASSES, labels * 2 + torch.arange(count) % 2, -1)  # two objects of each class
    return Rows(classifier(features), labels, features, classifier, instance, torch.full((count,), remembered))


def plain_rows(logits: Tensor, labels: Tensor) -> Tensor:
    targets = F.one_hot(labels, CLASSES + 1)[:, :CLASSES].to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)


def meta_gradient(loss: Balms, rows: Rows, features: Tensor, labels: Tensor) -> Tensor:
    """Back through a virtual step of gradient descent, with autograd all the way."""
    logit = loss.class_logit.clone().requires_grad_()
    foreground = rows.labels < CLASSES
    own = logit.sigmoid()[rows.labels[foreground]]
    weights = torch.ones(len(rows.labels)).double().masked_scatter(foreground, own * len(own) / own.sum())
    parameters = dict(rows.classifier.named_parameters())
    shifted = functional_call(rows.classifier, parameters, (rows.features,)) + loss.shift * foreground[:, None]
    shifted = shifted.masked_fill(rows.logits == HIDDEN, HIDDEN)
    total = loss.loss_weight * (weights * plain_rows(shifted, rows.labels)).sum() / len(rows.labels)
    steps = torch.autograd.grad(total, list(parameters.values()), create_graph=True)
    virtual = {n: p - loss.virtual_lr * g for (n, p), g in zip(parameters.items(), steps, strict=True)}
    meta = plain_rows(functional_call(rows.classifier, virtual, (features,)), labels).mean()
    (gradient,) = torch.autograd.grad(meta, logit)
    return gradient


@pytest.mark.parametrize("hidden", [False, True], ids=["all_known", "some_unverified"])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_the_class_weights_follow_adam_on_the_gradient_through_the_virtual_step(
    stats: Any, kind: str, hidden: bool
) -> None:
    torch.manual_seed(0)
    loss, classifier = Balms(stats, virtual_lr=0.3, meta_rows=12, loss_weight=2.0), CLASSIFIERS[kind]()
    loss.observe(make_rows(classifier))  # nothing remembered yet: no step
    assert not loss.class_logit.any()
    reference = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([reference], lr=0.01)
    for step in range(1, 4):
        rows = make_rows(classifier, seed=step)
        if hidden:
            verified = torch.rand(40, CLASSES, generator=torch.Generator().manual_seed(step)) < 0.5
            logits = loss.hide_unverified(rows.logits, rows.labels, verified)
            rows = Rows(logits, rows.labels, rows.features, classifier, rows.instance, rows.remembered)
        draws = {name: torch.rand(12).double() for name in ("classes", "entries")}
        features, labels = loss._recall(rows, draws)
        reference.grad = meta_gradient(loss, rows, features, labels)
        assert reference.grad.abs().sum() > 0
        loss.observe(rows, draws=draws)
        adam.step()
        torch.testing.assert_close(loss.class_logit, reference.detach(), rtol=1e-9, atol=1e-12)
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_equal_class_weights_make_it_the_balanced_loss(stats: Any, batch: Any, evaluate: Any) -> None:
    loss = Balms(stats)
    loss.class_logit.fill_(1.7)
    value, grad = evaluate(loss, batch.logits, batch.labels)
    expected, expected_grad = evaluate(BalancedSoftmax(stats, form="sigmoid"), batch.logits, batch.labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)
    assert torch.equal(loss.scores(batch.logits), batch.logits.sigmoid())


def test_foreground_rows_weigh_as_their_class_and_one_on_average(stats: Any, batch: Any, evaluate: Any) -> None:
    loss = Balms(stats)
    loss.class_logit.copy_(torch.linspace(-2, 3, CLASSES))
    _, grad = evaluate(loss, batch.logits, batch.labels)
    _, plain = evaluate(BalancedSoftmax(stats, form="sigmoid"), batch.logits, batch.labels)
    weight = (grad / plain).mean(dim=1)
    foreground = batch.labels < CLASSES
    expected = loss.class_logit.sigmoid()[batch.labels[foreground]]
    torch.testing.assert_close(weight[foreground], expected / expected.mean())
    torch.testing.assert_close(weight[~foreground], torch.ones_like(weight[~foreground]))


def test_recalled_features_are_spread_evenly_over_the_classes_seen(stats: Any) -> None:
    loss, classifier = Balms(stats, meta_rows=6000), CLASSIFIERS["linear"]()
    rows = make_rows(classifier, count=200)
    keep = (rows.labels != 1) & ((rows.labels != 0) | (torch.arange(200) < 20))
    picked = [each[keep] for each in (rows.logits, rows.labels, rows.features)]
    loss.observe(Rows(*picked, classifier, rows.instance[keep], rows.remembered[keep]))
    torch.manual_seed(0)
    _, labels = loss._recall(rows, None)
    share = torch.bincount(labels, minlength=CLASSES) / len(labels)
    torch.testing.assert_close(share, torch.tensor([0.2, 0, 0.2, 0.2, 0.2, 0.2]), atol=0.03, rtol=0)


def test_one_region_of_each_object_is_remembered(stats: Any) -> None:
    loss, classifier = Balms(stats), CLASSIFIERS["linear"]()
    labels = torch.tensor([6, 3, 3, 2, 3, 2])
    instance = torch.tensor([-1, 9, 4, 5, 9, 5])
    features = torch.arange(6).double()[:, None].expand(-1, WIDTH)
    loss.observe(Rows(torch.zeros(6, 6), labels, features, classifier, instance, labels < 0))
    assert loss.memory.filled.tolist() == [0, 0, 1, 2, 0, 0]
    assert loss.memory.state_dict()["features"][:, 0].tolist() == [3, 2, 1]
    loss.observe(make_rows(classifier, remembered=True))
    assert loss.memory.filled.tolist() == [0, 0, 1, 2, 0, 0]


def test_nothing_changes_in_evaluation(stats: Any) -> None:
    loss, classifier = Balms(stats), CLASSIFIERS["linear"]()
    loss.observe(make_rows(classifier))
    before = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    loss.eval().observe(make_rows(classifier, seed=1))
    assert all(torch.equal(before[name], tensor) for name, tensor in loss.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["empty", "no_foreground", "no_background", "huge", "hidden"])
def test_finite_and_connected(stats: Any, kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    loss, classifier = Balms(stats, meta_rows=8), nn.Linear(WIDTH, CLASSES)
    loss.observe(make_rows(classifier))
    count = 0 if kind == "empty" else 14
    labels = {"no_foreground": torch.full((14,), 6), "no_background": torch.arange(14) % 6}.get(
        kind, torch.arange(count) % 7
    )
    features = torch.randn(count, WIDTH) * (1e4 if kind == "huge" else 1)
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = classifier(features)
            if kind == "hidden":
                logits = loss.hide_unverified(logits, labels, torch.zeros(count, CLASSES, dtype=torch.bool))
            instance = torch.where(labels < 6, torch.arange(count), -1)
            loss.observe(Rows(logits, labels, features.to(dtype), classifier, instance, labels < 0))
            value = loss(logits, labels)["cls"]
        value.backward()
        assert value.dtype == torch.float32 and value.isfinite()
        assert classifier.weight.grad is not None and classifier.weight.grad.isfinite().all()
        assert all(tensor.isfinite().all() for tensor in loss.state_dict().values())


def test_the_state_round_trip_goes_on_alike(stats: Any) -> None:
    loss, other, classifier = Balms(stats), Balms(stats), CLASSIFIERS["linear"]()
    torch.manual_seed(0)
    for step in range(3):
        loss.observe(make_rows(classifier, seed=step))
    other.load_state_dict(loss.state_dict())
    for each in (loss, other):
        torch.manual_seed(5)
        for step in (7, 8):
            each.observe(make_rows(classifier, seed=step))
    assert loss.meta_steps == 4
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in loss.state_dict().items())


@pytest.mark.parametrize(
    ("option", "value"), [("meta_lr", -1), ("virtual_lr", 0), ("meta_rows", 0), ("memory_size", 0)]
)
def test_values_out_of_range_are_refused(stats: Any, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^loss\.{option}="):
        LOSSES.build("balms", stats, **{option: value})
