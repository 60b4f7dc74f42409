"""The reconstruction of AHRL: what it reduces to, what its margins are, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.errors import ConfigError
from aegl.longtail import LOSSES
from aegl.longtail.base import Rows
from aegl.longtail.classifiers import build_classifier
from aegl.longtail.losses.ahrl import Ahrl


def rows_of(labels: torch.Tensor, kind: str = "cosine", seed: int = 0) -> Rows:
    torch.manual_seed(seed)
    classifier = build_classifier(kind, 5, 7).double()  # type: ignore[arg-type]
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter)
    features = torch.randn(len(labels), 5, dtype=torch.float64)
    nothing = torch.full_like(labels, -1)
    return Rows(classifier(features), labels, features, classifier, nothing, nothing > 0)


def total(loss: Ahrl, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.stack(list(loss(logits, labels).values())).sum()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_without_margins_it_is_softmax_cross_entropy(stats: Any, seed: int, clusters: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 7, (20,), generator=generator)
    rows = rows_of(labels, seed=seed)
    leaf = rows.logits.detach().requires_grad_()
    loss = Ahrl(stats, clusters=clusters, margin=0.0)
    loss.cluster.copy_(torch.randint(0, clusters, (6,), generator=generator))
    loss.observe(rows)
    value, expected = total(loss, leaf, labels), F.cross_entropy(leaf, labels)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad(term, leaf)[0] for term in (value, expected)]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


def by_hand(loss: Ahrl, rows: Rows) -> tuple[float, float]:
    """The formula, element by element."""
    z, w, labels = rows.logits.detach(), rows.classifier.weight.detach(), rows.labels
    coarse = fine = 0.0
    for row, y in enumerate(labels.tolist()):
        inside = [6] if y == 6 else [j for j in range(6) if loss.cluster[j] == loss.cluster[y]]
        exponentials = z[row].exp()
        coarse -= float((exponentials[inside].sum() / exponentials.sum()).log())
        others = 0.0
        for j in inside:
            if j != y:
                cosine = F.cosine_similarity(w[y], w[j], dim=0).clamp(min=0)
                others += float((z[row, j] + loss.scale * loss.margin * cosine).exp())
        fine -= float((exponentials[y] / (exponentials[y] + others)).log())
    return coarse / len(labels), fine / len(labels)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_loss_is_the_formula(stats: Any, batch: Any, kind: str) -> None:
    loss = Ahrl(stats, clusters=2, margin=0.2, scale=5.0)
    rows = rows_of(batch.labels, kind)
    loss.observe(rows)
    value = total(loss, rows.logits, rows.labels)
    coarse, fine = by_hand(loss, rows)
    assert value.item() == pytest.approx(coarse + fine, rel=1e-9)
    assert {name: part.item() for name, part in loss.diagnostics.items()} == pytest.approx(
        {"coarse": coarse, "fine": fine}
    )
    half = Ahrl(stats, clusters=2, margin=0.2, scale=5.0, loss_weight=0.5)
    half.observe(rows)
    assert total(half, rows.logits, rows.labels).item() == pytest.approx(0.5 * sum(by_hand(loss, rows)), rel=1e-9)


def test_margins_are_no_path_for_the_gradient(stats: Any, batch: Any) -> None:
    loss = Ahrl(stats, clusters=1)
    rows = rows_of(batch.labels)
    loss.observe(rows)
    logits = rows.logits.detach().requires_grad_()
    total(loss, logits, batch.labels).backward()
    assert rows.classifier.weight.grad is None
    with torch.no_grad():
        rows.classifier.weight.mul_(-3)  # another length and direction, but the same angles
    before = total(loss, logits, batch.labels)
    loss.observe(rows)
    torch.testing.assert_close(total(loss, logits, batch.labels), before)


def test_the_classifier_of_a_branched_head_is_its_first_branch(stats: Any, batch: Any) -> None:
    loss = Ahrl(stats, clusters=2)
    rows = rows_of(batch.labels, "branches")
    loss.observe(rows)
    assert total(loss, rows.logits, rows.labels).isfinite()


def test_clusters_are_directions_of_the_classifier(stats: Any) -> None:
    loss = Ahrl(stats, clusters=2)
    assert loss.cluster.tolist() == [0, 0, 0, 1, 1, 1]
    vectors = torch.tensor([[1.0, 0], [0, 9], [9, 1], [0.1, 8], [20, 0], [1, 9]])
    loss.describe_classes({"classifier": vectors})
    assert loss.cluster.tolist() == [0, 1, 0, 1, 0, 1]
    again = Ahrl(stats, clusters=2)
    again.load_state_dict(loss.state_dict())
    assert torch.equal(again.cluster, loss.cluster)


@pytest.mark.parametrize(("classes", "clusters"), [(1203, 50), (80, 40), (1, 1)])
def test_default_number_of_clusters(make_stats: Any, classes: int, clusters: int) -> None:
    assert Ahrl(make_stats([1] * classes, [0] * classes)).clusters == clusters


def test_scores_are_a_softmax(stats: Any) -> None:
    logits = torch.randn(4, 7).bfloat16()
    scores = Ahrl(stats).scores(logits)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, logits.float().softmax(1)[:, :6])


@pytest.mark.parametrize("kind", ["empty", "no foreground", "no background", "huge", "hidden"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_edges_stay_finite_and_connected(stats: Any, kind: str, dtype: torch.dtype) -> None:
    loss = Ahrl(stats)
    labels = torch.arange(0 if kind == "empty" else 14) % 7
    labels = torch.full_like(labels, 6) if kind == "no foreground" else labels % (6 if kind == "no background" else 7)
    loss.observe(rows_of(labels))
    leaf = torch.randn(len(labels), 7).to(dtype)
    leaf = (1000 * leaf.sign() if kind == "huge" else leaf).requires_grad_()
    verified = torch.zeros(len(labels), 6, dtype=torch.bool)
    logits = loss.hide_unverified(leaf, labels, verified) if kind == "hidden" else leaf
    value = total(loss, logits, labels)
    value.backward()
    assert value.isfinite() and value.dtype == torch.float32
    assert leaf.grad is not None and leaf.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 7}, r"loss\.clusters=7: must lie in 1\.\.6, the number of classes"),
        ({"clusters": 0}, r"loss\.clusters=0: must be"),
        ({"margin": -0.1}, r"loss\.margin=-0\.1"),
        ({"scale": 0}, r"loss\.scale=0"),
    ],
)
def test_bad_options_are_refused(stats: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LOSSES.build("ahrl", stats, **options)
