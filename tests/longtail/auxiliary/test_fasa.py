"""FASA: golden vectors of its statistics and of the adaptation, a reference of the virtual features, and its state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aegl.errors import ConfigError
from aegl.longtail import AUXILIARY_LOSSES, LOSSES
from aegl.longtail.auxiliary._class_moments import ClassMoments
from aegl.longtail.auxiliary.fasa import Fasa, adapt
from aegl.longtail.base import Rows
from aegl.longtail.losses.softmax_ce import SoftmaxCE
from aegl.longtail.statistics import ClassStatistics

CLASSES, WIDTH = 6, 5


@pytest.fixture(scope="module")
def golden(oracles: Path) -> dict[str, np.ndarray]:
    with np.load(oracles / "fasa.npz") as archive:
        return dict(archive)


def make_rows(count: int = 40, seed: int = 0, *, remembered: bool = False, classifier: nn.Module | None = None) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    classifier = classifier or nn.Linear(WIDTH, CLASSES + 1).double()
    features = torch.randn(count, WIDTH, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES + 1, (count,), generator=generator)
    flags = torch.full((count,), remembered)
    return Rows(classifier(features), labels, features, classifier, torch.full_like(labels, -1), flags)


def draws_for(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "emit": torch.rand(CLASSES, generator=generator, dtype=torch.float64),
        "noise": torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64),
    }


def at(fasa: Fasa, epoch: float) -> Fasa:
    fasa.step_begin(0.5, epoch)
    return fasa


def test_golden_statistics(golden: Any) -> None:
    moments = ClassMoments(30, float(golden["decay"]))
    for step in range(3):
        features, labels = golden[f"step{step}_features"], golden[f"step{step}_labels"]
        moments.update(torch.as_tensor(features), torch.as_tensor(labels))
        np.testing.assert_allclose(moments.mean, golden[f"step{step}_mean_after"], rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(moments.variance, golden[f"step{step}_var_after"], rtol=1e-9, atol=1e-14)


def test_golden_start(golden: Any) -> None:
    counts = golden["instance_counts"]
    fasa = Fasa(ClassStatistics(counts, counts, 10, counts))
    np.testing.assert_allclose(fasa.probability, golden["initial_prob"], rtol=1e-9)


def test_golden_adaptation(golden: Any) -> None:
    change = golden["adapt_loss_after"] - golden["adapt_loss_before"]
    start, group, change = (torch.as_tensor(v) for v in (golden["initial_prob"], golden["adapt_group"], change))
    np.testing.assert_allclose(adapt(start, group, change, 1.1, 0.9), golden["adapt_prob_after"], rtol=1e-9)


def test_adapted_probabilities_stay_in_range() -> None:
    one = torch.ones(2, dtype=torch.float64)
    assert adapt(one, torch.tensor([0, 1]), torch.tensor([-1.0, 0.0]).double(), 1.1, 0.9).tolist() == [1, 1]


def test_virtual_features_against_numpy(stats: Any) -> None:
    loss, rows, draws = SoftmaxCE(stats), make_rows(), draws_for()
    fasa = at(Fasa(stats, loss_weight=0.3), 1.0)
    fasa.probability.fill_(0.6)
    value = fasa(rows, loss, draws=draws)["fasa"]
    features, labels = rows.features.numpy(), rows.labels.numpy()
    weight, bias = (p.detach().numpy() for p in (rows.classifier.weight, rows.classifier.bias))
    expected = []
    for label in range(CLASSES):
        own = features[labels == label]
        if len(own) and draws["emit"][label] < 0.6:
            spread = np.sqrt(own.var(axis=0, ddof=1)) if len(own) > 1 else 0
            logits = weight @ (own.mean(axis=0) + spread * draws["noise"][label].numpy()) + bias
            expected.append(np.log(np.exp(logits).sum()) - logits[label])
    assert 0 < len(expected) < CLASSES
    assert value.item() == pytest.approx(0.3 * np.mean(expected), rel=1e-9)


def test_virtual_features_train_the_classifier_alone(stats: Any) -> None:
    rows = make_rows()
    features = rows.features.requires_grad_()
    rows = Rows(rows.classifier(features), rows.labels, features, rows.classifier, rows.instance, rows.remembered)
    fasa = at(Fasa(stats), 2.0)
    fasa.probability.fill_(1.0)
    fasa(rows, SoftmaxCE(stats))["fasa"].backward()
    assert rows.classifier.weight.grad is not None and rows.classifier.weight.grad.abs().sum() > 0
    assert features.grad is None


def test_no_virtual_feature_before_its_epoch_nor_of_an_unseen_class(stats: Any) -> None:
    loss, rows = SoftmaxCE(stats), make_rows()
    fasa = Fasa(stats)
    fasa.probability.fill_(1.0)
    early = at(fasa, 0.99)(rows, loss)["fasa"]
    assert early.item() == 0 and early.requires_grad
    unseen = at(Fasa(stats), 1.0).eval()
    unseen.probability.fill_(1.0)
    assert unseen(rows, loss)["fasa"].item() == 0


def test_a_class_without_instances_is_never_drawn(stats: Any) -> None:
    fasa = Fasa(stats)
    assert fasa.probability[1] == 0 and fasa.probability.sum().item() == pytest.approx(1)


def test_probabilities_follow_the_losses_of_groups_epoch_by_epoch(make_stats: Any) -> None:
    """Two groups far apart: the loss of the one falls, that of the other rises."""
    stats = make_stats([10] * 6, [2] * 6)
    loss, fasa = SoftmaxCE(stats), Fasa(stats)
    labels = torch.arange(6).repeat(3)
    centres = torch.cat([torch.zeros(3, WIDTH), torch.full((3, WIDTH), 40.0)]) + 0.01 * torch.eye(6, WIDTH)
    features = centres[labels].double()
    classifier = nn.Linear(WIDTH, 7).double()
    start = fasa.probability.clone()

    def train(epoch: float, first: float, second: float) -> None:
        """A step in which every row of a group gives its own class this logit, the others 0."""
        logits = torch.zeros(18, 7, dtype=torch.float64, requires_grad=True)
        own = torch.where(labels < 3, first, second).double()
        logits = logits + nn.functional.one_hot(labels, 7) * own[:, None]
        remembered = torch.zeros(18, dtype=torch.bool)
        at(fasa, epoch)(Rows(logits, labels, features, classifier, torch.full_like(labels, -1), remembered), loss)

    train(0.0, 1.0, 1.0)
    train(0.5, 2.0, 2.0)
    train(1.0, 3.0, 0.0)  # closes epoch 0, with which there is nothing to compare
    assert torch.equal(fasa.probability, start) and fasa.closed == 1
    train(2.0, 3.0, 0.0)  # closes epoch 1
    np.testing.assert_allclose(fasa.probability / start, [1.1] * 3 + [0.9] * 3)
    train(2.5, 3.0, 0.0)
    train(3.0, 1.0, 1.0)  # closes epoch 2, in which nothing changed
    np.testing.assert_allclose(fasa.probability / start, [1.1] * 3 + [0.9] * 3)


def test_losses_are_measured_on_own_rows_alone(stats: Any) -> None:
    loss, fasa = SoftmaxCE(stats), Fasa(stats)
    rows = make_rows()
    at(fasa, 0.0)(rows, loss)
    for label in range(CLASSES):
        own = rows.labels == label
        expected = nn.functional.cross_entropy(rows.logits[own], rows.labels[own], reduction="sum")
        assert fasa.loss_sum[label].item() == pytest.approx(expected.item() if own.any() else 0.0)
        assert fasa.loss_count[label] == own.sum()
    before = {name: tensor.clone() for name, tensor in fasa.state_dict().items()}
    at(fasa, 0.0)(make_rows(seed=1, remembered=True), loss)
    at(fasa, 0.0).eval()(make_rows(seed=2), loss)
    assert all(torch.equal(before[name], tensor) for name, tensor in fasa.state_dict().items())


@pytest.mark.parametrize("name", ["softmax_ce", "sigmoid_bce", "seesaw", "eqlv2", "fbs_aegl"])
def test_the_loss_is_not_told_of_virtual_features(stats: Any, name: str) -> None:
    loss = LOSSES[name](stats)  # type: ignore[call-arg]
    rows = make_rows(classifier=nn.Linear(WIDTH, loss.num_logits).double())
    loss(rows.logits, rows.labels)
    state, shown = {k: v.clone() for k, v in loss.state_dict().items()}, dict(loss.diagnostics)
    fasa = at(Fasa(stats), 1.0)
    fasa.probability.fill_(1.0)
    value = fasa(rows, loss)["fasa"]
    assert value.isfinite() and value > 0
    assert loss.training and loss.diagnostics == shown
    assert all(torch.equal(state[key], tensor) for key, tensor in loss.state_dict().items())


@pytest.mark.parametrize("epoch", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["empty", "no_foreground", "no_background", "huge"])
def test_finite_and_connected(stats: Any, kind: str, epoch: float) -> None:
    count = 0 if kind == "empty" else 14
    labels = {"no_foreground": torch.full((14,), CLASSES), "no_background": torch.arange(14) % CLASSES}.get(
        kind, torch.arange(count) % (CLASSES + 1)
    )
    classifier, features = nn.Linear(WIDTH, CLASSES + 1), torch.randn(count, WIDTH) * (1e4 if kind == "huge" else 1)
    fasa = Fasa(stats)
    fasa.probability.fill_(1.0)
    for _ in range(2):
        rows = Rows(classifier(features), labels, features, classifier, torch.full_like(labels, -1), labels < 0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = at(fasa, epoch)(rows, SoftmaxCE(stats))["fasa"]
        value.backward()
        assert value.isfinite() and classifier.weight.grad is not None and classifier.weight.grad.isfinite().all()
        assert all(tensor.isfinite().all() for tensor in fasa.state_dict().values())


def test_the_state_round_trip_goes_on_alike(stats: Any) -> None:
    loss, fasa, other = SoftmaxCE(stats), Fasa(stats), Fasa(stats)
    for step, epoch in enumerate((0.0, 0.6, 1.2, 1.8)):
        at(fasa, epoch)(make_rows(seed=step), loss)
    other.load_state_dict(fasa.state_dict())
    results = []
    for each in (fasa, other):
        torch.manual_seed(3)
        values = [at(each, epoch)(make_rows(seed=9), loss, draws=draws_for(9))["fasa"].item() for epoch in (2.1, 2.7)]
        results.append((values, each.state_dict()))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(tensor, results[1][1][name]) for name, tensor in results[0][1].items())


@pytest.mark.parametrize(
    ("option", "value"), [("momentum", 0), ("increase", 0.9), ("decrease", 1.1), ("start_epoch", -1)]
)
def test_values_out_of_range_are_refused(stats: Any, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^auxiliary\.{option}="):
        AUXILIARY_LOSSES.build("fasa", stats, **{option: value})
