"""NMS re-sampling: the golden vector, and what each rule keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from aegl.errors import ConfigError
from aegl.longtail import SELECTORS
from aegl.longtail.base import Candidates
from aegl.longtail.selectors.forest_nms import ForestNms, greedy_nms


def one_by_one(boxes: Tensor, scores: Tensor, thresholds: Tensor) -> list[int]:
    """Greedy suppression as it is told."""
    left, kept = scores.argsort(descending=True, stable=True).tolist(), []
    overlap = box_iou(boxes, boxes)
    while left:
        best, *rest = left
        kept.append(best)
        left = [other for other in rest if overlap[best, other] <= thresholds[best]]
    return sorted(kept)


def some_boxes(seed: int, *shape: int, side: float = 40.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * side
    return torch.cat([corner, corner + 5 + 20 * torch.rand(*shape, 2, generator=generator)], -1)


def plain_of(candidates: Candidates) -> Callable[[float], Tensor]:
    def run(iou: float) -> Tensor:
        kept = torch.zeros_like(candidates.scores, dtype=torch.bool)
        for image in range(len(kept)):
            real = (candidates.scores[image] >= 0).nonzero().squeeze(1)
            boxes, scores = candidates.boxes[image][real], candidates.scores[image][real]
            kept[image, real[batched_nms(boxes, scores, candidates.levels[image][real], iou)]] = True
        return kept

    return run


@pytest.fixture
def candidates() -> Candidates:
    """Two images of 60 candidates, some of them padding; the first has a rare, a common and a frequent object."""
    boxes, truth = some_boxes(0, 2, 60), torch.zeros(2, 3, 4)
    truth[0] = boxes[0, [3, 17, 40]]
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(2, 60, generator=generator)
    scores[:, 50:] = -1.0
    levels = torch.randint(0, 2, (2, 60), generator=generator)
    return Candidates(boxes, scores, levels, truth, torch.tensor([[0, 2, 5], [-1, -1, -1]]))


def test_golden_vector(oracles: Path) -> None:
    with np.load(oracles / "forest_rcnn.npz") as data:
        detections = torch.as_tensor(data["nms_dets"])
        thresholds, expected = torch.as_tensor(data["nms_thresholds"]), data["nms_keep"]
    # The vector counts pixels: a box reaches to the end of its last one.
    boxes = detections[:, :4] + torch.tensor([0, 0, 1, 1])
    kept = greedy_nms(boxes, detections[:, 4], thresholds)
    by_score = detections[:, 4].argsort(descending=True)
    assert by_score[kept[by_score]].tolist() == expected.tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 40), st.booleans())
def test_the_kept_box_decides(seed: int, number: int, ties: bool) -> None:
    boxes = some_boxes(seed, number, side=15.0)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(number, generator=generator)
    scores = (4 * scores).round() / 4 if ties else scores
    thresholds = torch.rand(number, generator=generator)
    assert greedy_nms(boxes, scores, thresholds).nonzero().flatten().tolist() == one_by_one(boxes, scores, thresholds)


def test_discrete_keeps_what_each_run_keeps_on_its_objects(stats: Any, candidates: Candidates) -> None:
    plain = plain_of(candidates)
    found = ForestNms(stats).survivors(candidates, plain)
    on = box_iou(candidates.boxes[0], candidates.truth[0]) >= 0.3
    rare, common = on[:, 0], on[:, 1]
    expected = rare & plain(0.9)[0] | common & plain(0.8)[0] | ~rare & ~common & plain(0.7)[0]
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], plain(0.7)[1])
    assert not found[:, 50:].any()


def test_discrete_with_one_threshold_is_plain(stats: Any, candidates: Candidates) -> None:
    plain = plain_of(candidates)
    assert torch.equal(ForestNms(stats, thresholds=[0.5]).survivors(candidates, plain), plain(0.5))
    assert torch.equal(ForestNms(stats, thresholds=[0.5, 0.5, 0.5]).survivors(candidates, plain), plain(0.5))


def test_more_of_the_rare_survive(stats: Any) -> None:
    """Copies of an object, moved a little; only its class differs."""
    moved = torch.arange(8.0)[:, None] * torch.tensor([1.5, 0, 1.5, 0]) + torch.tensor([0.0, 0, 40, 40])
    numbers = []
    for label in (0, 2, 5):
        found = Candidates(
            moved[None],
            torch.linspace(1, 0.1, 8)[None],
            torch.zeros(1, 8).long(),
            moved[None, :1],
            torch.tensor([[label]]),
        )
        survivors = [ForestNms(stats, rule=rule).survivors(found, plain_of(found)) for rule in ("discrete", "linear")]  # type: ignore[arg-type]
        numbers.append([int(kept.sum()) for kept in survivors])
    discrete, linear = (list(column) for column in zip(*numbers, strict=True))
    assert discrete == sorted(discrete, reverse=True) and discrete[0] > discrete[2]
    assert linear == sorted(linear, reverse=True) and linear[0] > linear[2]


def test_linear_rule_ranks_classes_by_their_images(stats: Any) -> None:
    """Images are 2, 0, 20, 60, 150, 3000."""
    selector = ForestNms(stats, rule="linear", lowest=0.5, highest=1.0, thresholds=[0.9, 0.6])
    torch.testing.assert_close(selector.class_threshold, torch.tensor([0.9, 1.0, 0.8, 0.7, 0.6, 0.5, 0.6]))


def test_linear_rule_goes_by_the_object_overlapped_most(stats: Any, candidates: Candidates) -> None:
    selector = ForestNms(stats, rule="linear")
    found = selector.survivors(candidates, plain_of(candidates))
    most, where = box_iou(candidates.boxes[0], candidates.truth[0]).max(1)
    label = candidates.labels[0][where].where(most >= 0.3, 6)
    for image, thresholds in enumerate([selector.class_threshold[label], torch.full((60,), 0.7)]):
        for level in (0, 1):
            real = (candidates.levels[image] == level) & (candidates.scores[image] >= 0)
            rows = real.nonzero().flatten()
            kept = one_by_one(candidates.boxes[image][rows], candidates.scores[image][rows], thresholds[rows])
            assert found[image][rows].nonzero().flatten().tolist() == kept
    assert not found[:, 50:].any()


@pytest.mark.parametrize("rule", ["discrete", "linear"])
def test_images_without_objects_and_empty_boxes(stats: Any, candidates: Candidates, rule: Any) -> None:
    boxes = candidates.boxes.clone()
    boxes[:, :5] = 0
    none = Candidates(boxes, candidates.scores, candidates.levels, torch.zeros(2, 0, 4), torch.zeros(2, 0).long())
    padded = Candidates(boxes, candidates.scores, candidates.levels, torch.zeros(2, 2, 4), torch.full((2, 2), -1))
    selector = ForestNms(stats, rule=rule)
    first, second = (selector.survivors(given, plain_of(given)) for given in (none, padded))
    assert torch.equal(first, second)
    assert first[:, 5:].any()


def test_nothing_of_it_is_in_a_checkpoint(stats: Any) -> None:
    assert not ForestNms(stats).state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": []}, r"selector\.thresholds=\[\]"),
        ({"thresholds": [0.9, 1.2]}, r"selector\.thresholds=\[0\.9, 1\.2\]: .*above 0 and up to 1"),
        ({"rule": "cubic"}, r"selector\.rule=cubic: must be one of discrete, linear"),
        ({"overlap": 0}, r"selector\.overlap=0"),
    ],
)
def test_bad_options_are_refused(stats: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SELECTORS.build("forest_nms", stats, **options)
