"""Forest R-CNN's loss: the golden vector, how trees are made, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aegl.errors import ConfigError
from aegl.longtail import LOSSES
from aegl.longtail.base import HIDDEN
from aegl.longtail.clustering import k_means
from aegl.longtail.losses.forest_rcnn import ForestRcnn


@pytest.fixture
def golden_loss(golden: Any, stats_of: Any) -> Any:
    def make() -> ForestRcnn:
        data = golden("forest_rcnn")
        loss = ForestRcnn(stats_of(data), clusters=[5, 8])
        loss.parents.copy_(torch.as_tensor(np.stack([data["tree0_parent"], data["tree1_parent"]])))
        return loss

    return make


def joined(data: dict[str, np.ndarray], kind: str) -> np.ndarray:
    return np.concatenate([data[f"{part}_{kind}"] for part in ("fine", "tree0", "tree1")], axis=1)


def test_golden_loss_and_gradient(golden: Any, golden_loss: Any, assert_golden: Any) -> None:
    data = golden("forest_rcnn")
    logits, total = joined(data, "logits"), data["losses"].sum()
    assert golden_loss().column_groups == (31, 6, 9)
    assert_golden(golden_loss, logits, data["labels"], total, joined(data, "grad"), 1e-6)
    terms = golden_loss()(torch.as_tensor(logits), torch.as_tensor(data["labels"]))
    each = [terms[name].item() for name in ("cls_visual", "cls_geometric", "cls")]
    np.testing.assert_allclose(each, data["losses"], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_golden_scores(golden: Any, golden_loss: Any, dtype: torch.dtype) -> None:
    data = golden("forest_rcnn")
    scores = golden_loss().scores(torch.as_tensor(joined(data, "logits"), dtype=dtype))
    np.testing.assert_allclose(scores, data["scores"][:, :30], rtol=0, atol=1e-6)


def test_parents_that_know_nothing_leave_a_softmax(stats: Any) -> None:
    loss = ForestRcnn(stats)
    logits = torch.randn(9, loss.num_logits, dtype=torch.float64)
    logits[:, 7:] = 2.5
    torch.testing.assert_close(loss.scores(logits), logits[:, :7].softmax(1)[:, :6])


def test_a_certain_parent_leaves_its_classes_only(stats: Any) -> None:
    loss = ForestRcnn(stats, trees=["geometric"], clusters=[2])
    logits = torch.zeros(1, loss.num_logits)
    logits[0, 7 + 2] = 1000.0  # the second group: classes 3, 4, 5
    assert loss.parents.tolist() == [[1, 1, 1, 2, 2, 2, 0]]
    torch.testing.assert_close(loss.scores(logits), torch.tensor([[0, 0, 0, 1, 1, 1.0]]) / 3)


def test_trees_are_made_of_the_descriptions(stats: Any) -> None:
    loss = ForestRcnn(stats, trees=["lexical", "visual", "geometric"], clusters=[3, 2, 3])
    assert loss.class_descriptions == ("parent", "classifier", "mask")
    vectors = {
        "classifier": torch.tensor([[9.0, 0], [0, 9], [9, 1], [0, 8], [8, 0], [1, 9]]),
        "mask": torch.tensor([[1.0], [1], [0], [0], [0.5], [0.5]]).repeat(1, 4),
        "parent": torch.tensor([0, 1, 1, 2, 0, 0]),
    }
    loss.describe_classes(vectors)
    expected = [[1, 2, 2, 3, 1, 1, 0], [1, 2, 1, 2, 1, 2, 0], [1, 1, 2, 2, 3, 3, 0]]
    assert loss.parents.tolist() == expected
    again = ForestRcnn(stats, trees=["lexical", "visual", "geometric"], clusters=[3, 2, 3])
    again.load_state_dict(loss.state_dict())
    assert again.parents.tolist() == expected
    assert (loss.parents[1:, :6] - 1).tolist() == [k_means(vectors["classifier"], 2).tolist(), [0, 0, 1, 1, 2, 2]]


def test_rows_train_their_class_and_its_parents(stats: Any, batch: Any) -> None:
    loss = ForestRcnn(stats)
    logits = torch.randn(40, loss.num_logits, dtype=torch.float64)
    terms = loss(logits, batch.labels)
    fine, visual, geometric = logits.split(loss.column_groups, 1)
    assert terms["cls"].item() == pytest.approx(F.cross_entropy(fine, batch.labels).item())
    parents = [loss.parents[tree][batch.labels] for tree in (0, 1)]
    assert terms["cls_visual"].item() == pytest.approx(F.cross_entropy(visual, parents[0]).item())
    assert terms["cls_geometric"].item() == pytest.approx(F.cross_entropy(geometric, parents[1]).item())
    doubled = ForestRcnn(stats, loss_weight=2.0)(logits, batch.labels)
    assert all(doubled[name].item() == pytest.approx(2 * terms[name].item()) for name in terms)


def test_only_columns_of_classes_are_hidden(stats: Any, batch: Any) -> None:
    loss = ForestRcnn(stats)
    logits = torch.randn(40, loss.num_logits)
    hidden = loss.hide_unverified(logits, batch.labels, torch.zeros(40, 6, dtype=torch.bool))
    own = F.one_hot(batch.labels, 7).bool()[:, :6]
    assert torch.equal(hidden[:, :6], logits[:, :6].where(own, HIDDEN))
    assert torch.equal(hidden[:, 6:], logits[:, 6:])


@pytest.mark.parametrize("kind", ["empty", "no foreground", "no background", "huge", "hidden"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_edges_stay_finite_and_connected(stats: Any, kind: str, dtype: torch.dtype) -> None:
    loss = ForestRcnn(stats)
    labels = torch.arange(0 if kind == "empty" else 14) % 7
    labels = torch.full_like(labels, 6) if kind == "no foreground" else labels % (6 if kind == "no background" else 7)
    leaf = torch.randn(len(labels), loss.num_logits).to(dtype)
    leaf = (1000 * leaf.sign() if kind == "huge" else leaf).requires_grad_()
    verified = torch.zeros(len(labels), 6, dtype=torch.bool)
    logits = loss.hide_unverified(leaf, labels, verified) if kind == "hidden" else leaf
    total = torch.stack(list(loss(logits, labels).values())).sum()
    total.backward()
    assert total.isfinite() and total.dtype == torch.float32
    assert leaf.grad is not None and leaf.grad.isfinite().all()
    scores = loss.scores(logits.detach())
    assert scores.dtype == torch.float32 and ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize(
    ("classes", "sizes"), [(1203, (25, 50, 108)), (80, (25, 40, 40)), (6, (3, 3, 3)), (1, (1, 1, 1))]
)
def test_default_sizes_are_the_papers_up_to_half_of_the_classes(make_stats: Any, classes: int, sizes: Any) -> None:
    stats = make_stats(np.ones(classes), np.zeros(classes))
    assert ForestRcnn(stats, trees=["visual", "geometric", "lexical"]).clusters == sizes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": [2, 7]}, r"loss\.clusters=\[2, 7\]: each must lie in 1\.\.6"),
        ({"clusters": [0, 2]}, r"each must lie in 1\.\.6"),
        ({"clusters": [2]}, r"one number for each of loss\.trees=\['visual', 'geometric'\]"),
        ({"trees": []}, r"loss\.trees=\[\]: name one tree or more"),
        ({"trees": ["visual", "visual"]}, "each once"),
        ({"trees": ["oak"]}, r"loss\.trees=\['oak'\]: must be a list, each one of visual, geometric, lexical"),
    ],
)
def test_bad_options_are_refused(stats: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LOSSES.build("forest_rcnn", stats, **options)


def test_more_parents_than_groups_are_refused_with_the_number_to_give(stats: Any) -> None:
    loss = ForestRcnn(stats, trees=["geometric", "lexical"], clusters=[2, 3])
    vectors = {"mask": torch.randn(6, 4), "parent": torch.tensor([0, 1, 2, 3, 3, 0])}
    with pytest.raises(ConfigError, match=r"4 parents.*give loss\.clusters=\[2, 4\]"):
        loss.describe_classes(vectors)
