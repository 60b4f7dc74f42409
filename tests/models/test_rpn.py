"""The region proposal network: its losses, computed at sampled anchors only, are those of the whole maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aegl.models.anchors import AnchorGenerator
from aegl.models.matcher import match, sample
from aegl.models.rpn import LOW_QUALITY_IOU, RegionProposals, RpnOptions
from aegl.models.sparse_conv import convolve_at
from aegl.types import Targets

SIDE = 64


def pyramid(seed: int, *, layout: torch.memory_format = torch.contiguous_format) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    sizes = [(16, 12), (8, 6), (4, 3), (1, 1)]
    maps = [torch.randn(2, 8, height, width, generator=rng, dtype=torch.float64) for height, width in sizes]
    return [one.contiguous(memory_format=layout).requires_grad_() for one in maps]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([torch.contiguous_format, torch.channels_last]))
def test_a_convolution_at_cells_is_that_of_the_whole_map_there(seed: int, layout: torch.memory_format) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(8, 5, 3, padding=1).double()
    features = pyramid(seed, layout=layout)
    cells = torch.randint(0, sum(feature[0, 0].numel() for feature in features), (2, 30))
    found = convolve_at(features, cells, conv)
    whole = torch.cat([conv(feature).flatten(2) for feature in features], 2).transpose(1, 2)
    wanted = whole.gather(1, cells[..., None].expand(-1, -1, 5))
    torch.testing.assert_close(found, wanted)
    weight = torch.randn_like(wanted)
    inputs = [*features, *conv.parameters()]
    ours, theirs = (torch.autograd.grad((result * weight).sum(), inputs) for result in (found, wanted))
    torch.testing.assert_close(ours, theirs)


def network(images_objects: int) -> tuple[RegionProposals, Targets]:
    torch.manual_seed(0)
    rpn = RegionProposals(8, AnchorGenerator([4, 8, 16, 64], 8, [0.5, 1.0, 2.0]), RpnOptions(batch_per_image=32))
    for parameter in rpn.parameters():
        nn.init.normal_(parameter, std=0.3)
    corner = 30 * torch.rand(2, images_objects, 2)
    targets = Targets(
        boxes=torch.cat([corner, corner + 30], -1),
        labels=torch.zeros(2, images_objects, dtype=torch.int64),
        masks=torch.zeros(2, images_objects, 8, 8, dtype=torch.uint8),
        num_objects=torch.full((2,), images_objects),
    )
    return rpn.double(), targets


def plain_losses(rpn: RegionProposals, features: list[Tensor], targets: Targets) -> Tensor:
    """The same from predictions everywhere."""
    logits, deltas = (torch.cat(parts, 1) for parts in rpn._predict(features))
    anchors = torch.cat(rpn.anchors(features))
    matched = match(
        anchors,
        targets.boxes,
        targets.num_objects,
        positive_iou=0.7,
        negative_iou=0.3,
        low_quality_iou=LOW_QUALITY_IOU,
    )
    rows, valid, positive = sample(matched, 32, 0.5)
    image, place = valid.nonzero(as_tuple=True)
    at, is_object = rows[image, place], positive[image, place]
    total = F.binary_cross_entropy_with_logits(logits[image, at].float(), is_object.float(), reduction="sum")
    if is_object.any():
        image, at = image[is_object], at[is_object]
        wanted = rpn.coder.encode(anchors[at], targets.boxes[image, matched[image, at]])
        total = total + (deltas[image, at].float() - wanted).abs().sum()
    return total / len(place)


@pytest.mark.parametrize("objects", [0, 3])
def test_losses_and_gradients_are_those_of_the_whole_maps(objects: int) -> None:
    rpn, targets = network(objects)
    features = pyramid(1)
    inputs = [*features, *rpn.parameters()]
    torch.manual_seed(7)
    ours = sum(rpn(features, (SIDE, SIDE), targets)[2].values(), torch.zeros(()))
    torch.manual_seed(7)
    plain = plain_losses(rpn, features, targets)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    gradients = torch.autograd.grad(ours, inputs)
    wanted = torch.autograd.grad(plain, inputs, allow_unused=True)
    for found, expected in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(found, torch.zeros_like(found) if expected is None else expected)


def test_gradients_survive_autocast() -> None:
    """The layers run without gradient too, and autocast caches what it casts."""
    rpn, targets = network(3)
    rpn, features = rpn.float(), [feature.detach().float() for feature in pyramid(1)]
    with torch.autocast("cpu", torch.bfloat16):
        losses = rpn(features, (SIDE, SIDE), targets)[2]
    sum(losses.values(), torch.zeros(())).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in rpn.parameters())


def test_proposals_carry_no_gradient() -> None:
    rpn, targets = network(3)
    boxes, valid, losses = rpn(pyramid(1), (SIDE, SIDE), targets)
    assert not boxes.requires_grad and valid.any()
    assert all(loss.requires_grad for loss in losses.values())
