"""Region selectors in the RPN, masks shared by classes, and classifiers of several branches in the whole detector."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from aegl.config.checks import cross_checks
from aegl.config.schema import Config
from aegl.longtail.base import Candidates
from aegl.longtail.clustering import k_means
from aegl.models.mask_head import MaskHead

BOXES = [[[4.0, 4, 40, 44], [50, 10, 90, 60]], [[10.0, 10, 60, 50]], []]
LABELS = [[0, 3], [6], []]
STRUCTURED: dict[str, dict[str, Any]] = {
    "forest": {
        "loss": {"name": "forest_rcnn"},
        "box": {"classifier": "branches"},
        "mask": {"clusters": 3},
        "selector": {"name": "forest_nms"},
    },
    "linear": {"loss": {"name": "forest_rcnn"}, "selector": {"name": "forest_nms", "rule": "linear"}},
    "ahrl": {"loss": {"name": "ahrl"}, "box": {"classifier": "cosine"}},
    "simcal": {"loss": {"name": "simcal"}, "box": {"classifier": "dual"}},
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_every_part_is_trained(tiny_model: Any, make_targets: Any, images: torch.Tensor, name: str) -> None:
    model = tiny_model(**STRUCTURED[name])
    for boxes, labels in ((BOXES, LABELS), ([[], [], []], [[], [], []])):
        model.zero_grad()
        total = torch.stack(list(model(images, make_targets(boxes, labels)).values())).sum()
        total.backward()
        assert total.isfinite()
        assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", STRUCTURED)
def test_a_state_dict_is_a_model(tiny_model: Any, images: torch.Tensor, name: str) -> None:
    model, other = tiny_model(**STRUCTURED[name]), tiny_model(**STRUCTURED[name])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    for table in (n for n in model.state_dict() if n.endswith(("parents", "row_of_class", "cluster"))):
        model.get_buffer(table).copy_(model.get_buffer(table).flip(-1))
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert all(
            torch.equal(a, b) for a, b in zip(*(vars(m.eval()(images)).values() for m in (model, other)), strict=True)
        )


class Recorder:
    """A selector's survivors: every candidate, or none of an image."""

    def __init__(self, keep: Any) -> None:
        self.keep = keep
        self.seen: list[tuple[Candidates, torch.Tensor]] = []

    def __call__(self, candidates: Candidates, plain: Any) -> Any:
        self.seen.append((candidates, plain(0.7)))
        return self.keep(candidates, plain)


def proposals(model: Any, images: torch.Tensor, targets: Any) -> Any:
    with torch.no_grad():
        return model.rpn(model._features(images), (64, 96), targets)[:2]


def test_survivors_of_plain_suppression_are_the_usual_proposals(
    tiny_model: Any, make_targets: Any, images: torch.Tensor
) -> None:
    model, targets = tiny_model(), make_targets(BOXES, LABELS)
    usual = proposals(model, images, targets)
    model.rpn._survivors = recorder = Recorder(lambda candidates, plain: plain(0.7))
    found = proposals(model, images, targets)
    assert all(torch.equal(a, b) for a, b in zip(usual, found, strict=True))
    ((candidates, _),) = recorder.seen
    assert torch.equal(candidates.truth, targets.boxes) and torch.equal(candidates.labels, targets.labels)
    assert candidates.boxes.shape[:2] == candidates.scores.shape == candidates.levels.shape


def test_proposals_are_the_best_survivors(tiny_model: Any, make_targets: Any, images: torch.Tensor) -> None:
    model, targets = tiny_model(), make_targets(BOXES, LABELS)

    def all_but_the_second(candidates: Candidates, plain: Any) -> torch.Tensor:
        keep = candidates.scores >= 0
        keep[1] = False
        return keep

    model.rpn._survivors = recorder = Recorder(all_but_the_second)
    boxes, valid = proposals(model, images, targets)
    ((candidates, _),) = recorder.seen
    assert valid.shape == (3, 20) and valid[[0, 2]].all() and not valid[1].any() and not boxes[1].any()
    best = candidates.scores[0].argsort(descending=True, stable=True)[:20]
    assert torch.equal(boxes[0], candidates.boxes[0][best])


def test_inference_does_not_ask_the_selector(tiny_model: Any, images: torch.Tensor) -> None:
    model = tiny_model()
    with torch.no_grad():
        usual = model.eval()(images)
        model.rpn._survivors = Recorder(lambda candidates, plain: 1 / 0)
        found = model(images)
    assert all(torch.equal(a, b) for a, b in zip(vars(usual).values(), vars(found).values(), strict=True))


def test_a_copy_of_the_model_has_its_own_selector(tiny_model: Any) -> None:
    model = copy.deepcopy(tiny_model(**STRUCTURED["forest"]))
    assert model.rpn._survivors.__self__ is model.box_head.selector
    assert sum(module is model.box_head.selector for module in model.modules()) == 1


def mask_head(**options: Any) -> MaskHead:
    torch.manual_seed(0)
    return MaskHead(4, 6, 1, num_classes=6, **options).eval()


@pytest.mark.parametrize("predictor", ["linear", "cosine"])
def test_classes_of_a_cluster_share_a_mask(predictor: Any) -> None:
    head = mask_head(clusters=3, predictor=predictor)
    assert head.predictor.out_channels == 3 and head.class_descriptions == ("mask",)
    shapes = torch.tensor([[0.0], [1], [0], [0.5], [1], [0.5]]).repeat(1, 784)
    head.describe_classes({"mask": shapes})
    assert head.row_of_class.tolist() == [0, 1, 0, 2, 1, 2] == k_means(shapes, 3).tolist()
    pooled = torch.rand(1, 4, 7, 7).expand(6, 4, 7, 7)
    masks = head(pooled, torch.arange(6))
    assert torch.equal(masks[0], masks[2]) and torch.equal(masks[1], masks[4]) and torch.equal(masks[3], masks[5])
    assert not torch.allclose(masks[0], masks[1])
    hidden = torch.relu(head.convs[0](pooled))
    larger = torch.relu(F.conv_transpose2d(hidden, head.deconv.weight, head.deconv.bias, stride=2))
    torch.testing.assert_close(masks, head.predictor(larger)[torch.arange(6), head.row_of_class])


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"class_agnostic": True}, [0] * 6),
        ({"clusters": 1}, [0] * 6),
        ({"clusters": 50}, [0, 0, 1, 1, 2, 2]),
    ],
)
def test_rows_of_the_predictor(options: Any, rows: list[int]) -> None:
    head = mask_head(**options)
    assert head.row_of_class.tolist() == rows
    assert head.predictor.out_channels == max(rows) + 1
    shared = options == {"clusters": 50}
    assert ("row_of_class" in head.state_dict()) == shared == bool(head.class_descriptions)


def test_one_mask_for_all_cannot_be_shared() -> None:
    config = Config.model_validate({"mask": {"class_agnostic": True, "clusters": 4}})
    assert [names for names, _ in cross_checks(config)] == [("mask.class_agnostic", "mask.clusters")]
