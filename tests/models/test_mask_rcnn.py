"""The detector as a whole: trains, keeps its promises about batches and emptiness, and can be exported."""

from __future__ import annotations

from typing import Any

import pytest
import torch

BOXES = [[[4.0, 4, 40, 44], [50, 10, 90, 60]], [[10.0, 10, 60, 50]], []]
LABELS = [[0, 3], [6], []]


def test_losses_fall_on_one_batch(tiny_model: Any, make_targets: Any, images: torch.Tensor) -> None:
    model, targets = tiny_model(), make_targets(BOXES, LABELS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    totals = []
    for _ in range(25):
        losses = model(images, targets)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert set(losses) == {"rpn_cls", "rpn_box", "cls", "box", "mask"}
    assert totals[-1] < 0.6 * totals[0]


@pytest.mark.parametrize("boxes", [BOXES, [[], [], []]])
def test_every_parameter_gets_a_gradient(
    tiny_model: Any, make_targets: Any, images: torch.Tensor, boxes: list[Any]
) -> None:
    model = tiny_model()
    labels = [[0] * len(image) for image in boxes]
    total = sum(model(images, make_targets(boxes, labels)).values())
    total.backward()
    assert torch.isfinite(total)
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_an_image_is_detected_alike_alone_and_in_a_batch(tiny_model: Any, images: torch.Tensor) -> None:
    model = tiny_model().eval()
    with torch.no_grad():
        together, alone = model(images), model(images[1:2])
    assert int(alone.num_detections[0]) == int(together.num_detections[1]) > 0
    torch.testing.assert_close(alone.boxes[0], together.boxes[1], atol=1e-3, rtol=0)
    torch.testing.assert_close(alone.scores[0], together.scores[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(alone.masks[0], together.masks[1], atol=1e-4, rtol=0)


def test_detections_are_padded_and_sorted(tiny_model: Any, images: torch.Tensor) -> None:
    model = tiny_model(conf=0.16).eval()
    with torch.no_grad():
        found = model(images)
    for image, count in enumerate(found.num_detections.tolist()):
        assert (found.labels[image, count:] == -1).all()
        assert not found.boxes[image, count:].any()
        assert not found.masks[image, count:].any()
        scores = found.scores[image, :count]
        assert (scores[:-1] >= scores[1:]).all()
        assert (scores > 0.16).all()
    assert (found.boxes[..., 2] <= 96).all()
    assert (found.boxes[..., 3] <= 64).all()


def test_class_agnostic_heads_work(tiny_model: Any, make_targets: Any, images: torch.Tensor) -> None:
    model = tiny_model(box={"class_agnostic": True}, mask={"class_agnostic": True})
    assert torch.isfinite(sum(model(images, make_targets(BOXES, LABELS)).values()))
    with torch.no_grad():
        assert model.eval()(images).masks.shape[-1] == 8


def test_training_without_targets_is_refused(tiny_model: Any, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="targets"):
        tiny_model()(images)


def test_same_seed_same_model(tiny_model: Any) -> None:
    a, b = tiny_model().state_dict(), tiny_model().state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
