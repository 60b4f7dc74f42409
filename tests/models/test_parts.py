"""Parts of the detector against torchvision and against cases worked out by hand."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aegl.errors import ConfigError
from aegl.models.anchors import AnchorGenerator
from aegl.models.box_coder import BoxCoder
from aegl.models.boxes import pairwise_iou
from aegl.models.mask_head import MaskHead, mask_targets
from aegl.models.matcher import BELOW, BETWEEN, match, sample
from aegl.models.ops import SAMPLING_RATIO, nms_padded, roi_align_by_level, roi_align_levels
from aegl.models.postprocess import PostprocessOptions, select
from aegl.models.roi_pool import RegionPool
from aegl.models.roi_sampler import SampledRegions
from aegl.models.rpn import _rank_score


def boxes_from(seed: int, *shape: int, side: float = 100) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * side
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2, generator=generator) * side / 2], -1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_iou_is_torchvisions(seed: int) -> None:
    a, b = boxes_from(seed, 12), boxes_from(seed + 1, 7)
    torch.testing.assert_close(pairwise_iou(a, b), torchvision.ops.box_iou(a, b))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_decode_undoes_encode(seed: int) -> None:
    coder = BoxCoder(0.1, 0.2)
    reference, boxes = boxes_from(seed, 20), boxes_from(seed + 1, 20)
    torch.testing.assert_close(coder.decode(reference, coder.encode(reference, boxes)), boxes, atol=1e-3, rtol=1e-4)


def test_anchors_of_a_level() -> None:
    anchors = AnchorGenerator([4, 8], scale=8, ratios=[0.5, 1.0])([torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 1)])
    assert [len(level) for level in anchors] == [12, 2]
    torch.testing.assert_close(anchors[0][1], torch.tensor([-16.0, -16, 16, 16]))
    wide = anchors[0][0]
    assert float((wide[3] - wide[1]) / (wide[2] - wide[0])) == pytest.approx(0.5)
    centre = (anchors[0][2 * 4][:2] + anchors[0][2 * 4][2:]) / 2
    assert centre.tolist() == [4.0, 4.0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=20))
def test_proposals_are_ranked_as_their_logits(values: list[float]) -> None:
    logits = torch.tensor(values)
    ranks = _rank_score(logits)
    assert ((ranks >= 0) & (ranks <= 1)).all()
    order = logits.argsort()
    assert (ranks[order].diff() >= 0).all()


def test_sure_proposals_are_told_apart() -> None:
    logits = torch.linspace(12, 30, 1000)
    assert len(_rank_score(logits).unique()) == 1000


def test_matching_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 0, 0]])
    candidates = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5.5], [50, 50, 60, 60], [20, 20, 30, 24]])
    two, numbers = boxes.expand(2, 3, 4), torch.tensor([2, 0])
    found = match(candidates, two, numbers, positive_iou=0.7, negative_iou=0.3)
    assert found.tolist() == [[0, BETWEEN, BELOW, BETWEEN], [BELOW] * 4]
    found = match(candidates, two, numbers, positive_iou=0.7, negative_iou=0.3, low_quality_iou=0.3)
    assert found.tolist() == [[0, BETWEEN, BELOW, 1], [BELOW] * 4]


def _match_by_loops(candidates: Tensor, boxes: Tensor, number: int) -> list[int]:
    iou = [[float(pairwise_iou(c[None], b[None])) for b in boxes[:number]] for c in candidates]
    found = []
    for row in iou:
        best = max(row, default=-1.0)
        found.append(row.index(best) if best >= 0.5 else BELOW if best < 0.3 else BETWEEN)
    for b in range(number):
        highest = max(row[b] for row in iou)
        if highest >= 0.1:
            found = [b if row[b] == highest else f for row, f in zip(iou, found, strict=True)]
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(0, 6), st.sampled_from([1, 1 << 26]))
def test_matching_of_a_batch_is_a_loop_over_its_images(seed: int, images: int, most: int, pairs: int) -> None:
    candidates, boxes = boxes_from(seed, images, 25, side=40), boxes_from(seed + 1, images, most, side=40)
    numbers = torch.arange(images) * most // max(images - 1, 1)
    keys = {"positive_iou": 0.5, "negative_iou": 0.3, "low_quality_iou": 0.1}
    with mock.patch("aegl.models.matcher._PAIRS", pairs):  # however many images fit at once
        found = match(candidates, boxes, numbers, **keys)
    expected = [_match_by_loops(candidates[i], boxes[i], int(numbers[i])) for i in range(images)]
    assert found.tolist() == expected
    shared = match(candidates[0], boxes, numbers, **keys)
    assert shared.tolist() == [_match_by_loops(candidates[0], boxes[i], int(numbers[i])) for i in range(images)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-2, 1), min_size=1, max_size=60), st.integers(1, 40), st.floats(0.05, 1))
def test_sampling_keeps_its_numbers(matched: list[int], number: int, fraction: float) -> None:
    rows, valid, positive = sample(torch.tensor([matched, matched[::-1]]), number, fraction)
    for image, kinds in enumerate([matched, matched[::-1]]):
        drawn = [(kinds[r], bool(p)) for r, v, p in zip(rows[image], valid[image], positive[image], strict=True) if v]
        assert all((kind >= 0) == is_positive and kind != BETWEEN for kind, is_positive in drawn)
        positives = min(sum(k >= 0 for k in kinds), int(number * fraction))
        assert sum(p for _, p in drawn) == positives
        assert len(drawn) - positives == min(sum(k == BELOW for k in kinds), number - positives)
        chosen = rows[image][valid[image]].tolist()
        assert len(set(chosen)) == len(chosen)  # nothing twice


def test_sampling_is_even() -> None:
    matched = torch.tensor([[0] * 10 + [BELOW] * 10]).expand(4000, -1)
    rows, valid, _ = sample(matched, 8, 0.25)
    counts = torch.bincount(rows[valid], minlength=20)
    assert (counts[:10] / 4000 - 0.2).abs().max() < 0.04 and (counts[10:] / 4000 - 0.6).abs().max() < 0.04


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_nms_is_torchvisions(seed: int, max_out: int) -> None:
    boxes = boxes_from(seed, 3, 30, side=60)
    scores = torch.rand(3, 30, generator=torch.Generator().manual_seed(seed))
    scores[1] = -1.0
    scores[2, 10:] = -1.0
    groups = torch.randint(0, 3, (3, 30), generator=torch.Generator().manual_seed(seed))
    indices, valid = nms_padded(boxes, scores, groups, 0.5, max_out)
    assert not valid[1].any()
    for image in (0, 2):
        real = scores[image] >= 0
        kept = torchvision.ops.batched_nms(boxes[image][real], scores[image][real], groups[image][real], 0.5)[:max_out]
        assert indices[image][valid[image]].tolist() == kept.tolist()


@pytest.mark.parametrize("pooling", [roi_align_levels, roi_align_by_level])
def test_roi_align_takes_each_region_from_its_level(pooling: Any) -> None:
    features = [torch.rand(2, 3, 16, 16, requires_grad=True), torch.rand(2, 3, 8, 8, requires_grad=True)]
    rois = torch.tensor([[0, 4.0, 4, 30, 30], [1, 0, 0, 60, 60], [1, 8, 8, 20, 24]])
    levels = torch.tensor([0, 1, 0])
    pooled = pooling(features, rois, levels, [4, 8], 5, SAMPLING_RATIO)
    for row, level in enumerate(levels.tolist()):
        scale = 1 / [4, 8][level]
        expected = torchvision.ops.roi_align(features[level], rois[row : row + 1], 5, scale, 0, aligned=True)
        torch.testing.assert_close(pooled[row : row + 1], expected)
    pooled.sum().backward()
    assert all(feature.grad is not None and feature.grad.any() for feature in features)


def test_levels_double_with_the_side() -> None:
    pool = RegionPool([4, 8, 16, 32], 7)
    sides = torch.tensor([10.0, 57, 113, 225, 900])
    boxes = torch.stack([torch.zeros(5), torch.zeros(5), sides, sides], 1)
    assert pool.levels(boxes).tolist() == [0, 0, 1, 2, 3]


def test_mask_of_the_right_class() -> None:
    head = MaskHead(4, 6, 1, num_classes=5).eval()
    pooled, labels = torch.rand(3, 4, 7, 7), torch.tensor([4, 0, 2])
    hidden = torch.relu(head.convs[0](pooled))
    larger = torch.relu(F.conv_transpose2d(hidden, head.deconv.weight, head.deconv.bias, stride=2))
    every: Tensor = head.predictor(larger)
    torch.testing.assert_close(head(pooled, labels), every[torch.arange(3), labels])


def test_mask_target_of_the_box_itself_is_the_stored_mask(make_targets: Any) -> None:
    targets = make_targets([[[10.0, 20, 38, 48]]], [[0]], size=28)
    targets.masks[0, 0] = (torch.rand(28, 28) > 0.5).to(torch.uint8)
    zero = torch.zeros(1, dtype=torch.int64)
    same = SampledRegions(torch.tensor([[0.0, 10, 20, 38, 48]]), zero, zero)
    assert torch.equal(mask_targets(same, targets, 28)[0], targets.masks[0, 0].float())
    left = SampledRegions(torch.tensor([[0.0, -18, 20, 38, 48]]), zero, zero)
    shifted = mask_targets(left, targets, 28)[0]
    assert not shifted[:, :14].any()
    assert shifted[:, 14:].any()


def selection(scores: Tensor, options: PostprocessOptions) -> Any:
    proposals = torch.tensor([[[0.0, 0, 20, 20], [1, 1, 21, 21], [40, 40, 60, 60]]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    return select(scores, torch.zeros(1, 3, 1, 4), proposals, valid, (64, 64), BoxCoder(0.1, 0.2), options)


SCORES = torch.tensor([[[0.9, 0.3], [0.8, 0.0], [0.05, 0.7]]])


def test_selection_suppresses_within_classes_only() -> None:
    found = selection(SCORES, PostprocessOptions(conf=0.1, iou=0.5, max_det=4, nms_candidates=6))
    assert found.labels.tolist() == [[0, 1, 1, -1]]
    torch.testing.assert_close(found.scores, torch.tensor([[0.9, 0.7, 0.3, 0.0]]))
    assert found.complete.tolist() == [True]


def test_selection_says_when_it_may_be_incomplete() -> None:
    few = PostprocessOptions(conf=0.1, iou=0.5, max_det=4, nms_candidates=2)
    assert selection(SCORES, few).complete.tolist() == [False]
    full = PostprocessOptions(conf=0.1, iou=0.5, max_det=1, nms_candidates=2)
    assert selection(SCORES, full).complete.tolist() == [True]


def test_a_part_that_reruns_the_classifier_needs_one_that_reads_one_vector(tiny_model: Any) -> None:
    with pytest.raises(ConfigError, match=r"box\.classifier=dual: reads hidden and pooled features, and Fasa trains"):
        tiny_model(loss={"name": "simcal"}, box={"classifier": "dual"}, auxiliary={"name": "fasa"})
