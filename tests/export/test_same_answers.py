"""An exported detector against the PyTorch one with the same weights: sizes, batches, contents, methods, heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from aegl.longtail import LOSSES
from aegl.longtail.classifiers import build_classifier
from aegl.longtail.statistics import ClassStatistics
from aegl.types import Detections

SIZES = {
    "small": (32, 32),
    "usual": (64, 96),
    "large": (320, 544),
    "very wide": (32, 640),
    "very tall": (640, 32),
}


def assert_same(found: Detections, expected: Detections) -> None:
    """Every detection once in both, whatever the order of near-ties, and padding as promised."""
    assert found.num_detections.tolist() == expected.num_detections.tolist()
    assert found.complete.tolist() == expected.complete.tolist()
    for image, count in enumerate(expected.num_detections.tolist()):
        assert_padded(found, image, count)
        distance = (found.boxes[image, :count, None] - expected.boxes[image, None, :count]).abs().amax(-1)
        distance += 1e6 * (found.labels[image, :count, None] != expected.labels[image, None, :count])
        if count:
            partner = distance.argmin(1)
            assert sorted(partner.tolist()) == list(range(count))
            assert distance.amin(1).max() < 0.01
            torch.testing.assert_close(found.scores[image, :count], expected.scores[image, partner], atol=1e-4, rtol=0)
            torch.testing.assert_close(found.masks[image, :count], expected.masks[image, partner], atol=1e-3, rtol=0)


def assert_padded(found: Detections, image: int, count: int) -> None:
    scores = found.scores[image, :count]
    assert (scores[:-1] >= scores[1:]).all()
    assert (found.labels[image, count:] == -1).all()
    for field in (found.boxes, found.scores, found.masks):
        assert not field[image, count:].any()


def blank(case: Any, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """``[3, H, W]`` of padding only."""
    return np.broadcast_to(np.array(case.meta.pad_value, dtype=np.uint8)[:, None, None], (3, *size)).copy()


def test_full_images(case: Any, scene: Any) -> None:
    for seed in range(3):
        images = scene(seed, (64, 96))[None]
        found = case.onnx(images)
        assert_same(found, case.pytorch(images))
        assert len(found.labels.unique()) > 3  # or it would show little


def test_types_are_those_of_pytorch(case: Any, scene: Any) -> None:
    images = scene(0, (64, 96))[None]
    found, expected = case.onnx(images), case.pytorch(images)
    for name in vars(expected):
        a, b = getattr(found, name), getattr(expected, name)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)


def test_an_image_without_detections(plain: Any, scene: Any) -> None:
    nothing = blank(plain)[None]
    assert plain.pytorch(nothing).num_detections.tolist() == [0]
    assert_same(plain.onnx(nothing), plain.pytorch(nothing))
    mixed = np.stack([blank(plain), scene(1, (64, 96)), blank(plain)])
    assert plain.pytorch(mixed).num_detections.tolist() == [0, 20, 0]
    assert_same(plain.onnx(mixed), plain.pytorch(mixed))


def test_a_session_remembers_nothing(case: Any, scene: Any) -> None:
    images = [scene(3, (64, 96), objects=0)[None], scene(4, (64, 96), objects=30)[None], blank(case)[None]]
    first = [case.onnx(image) for image in images]
    again = [case.onnx(image) for image in reversed(images)][::-1]
    for a, b in zip(first, again, strict=True):
        for name in vars(a):
            assert torch.equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_batches_of_other_sizes_than_the_traced_one(case: Any, scene: Any, batch: int) -> None:
    images = np.stack([scene(10 + seed, (64, 96), objects=4 * seed) for seed in range(batch)])
    found = case.onnx(images)
    assert_same(found, case.pytorch(images))
    assert len({tuple(row) for row in found.scores.tolist()}) == batch


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("name", ["plain", "many_classes"])
def test_sizes(request: pytest.FixtureRequest, scene: Any, name: str, size: tuple[int, int]) -> None:
    case = request.getfixturevalue(name)
    images = np.stack([scene(20, size, objects=15), scene(21, size, objects=3)])
    assert_same(case.onnx(images), case.pytorch(images))


def test_more_objects_than_detections_may_be_given(plain: Any, scene: Any) -> None:
    images = scene(30, (160, 224), objects=80)[None]
    found = plain.onnx(images)
    assert found.num_detections.tolist() == [plain.meta.max_det]
    assert found.complete.tolist() == [True]
    assert_same(found, plain.pytorch(images))


def test_the_file_says_when_candidates_ran_short(windowed: Any, scene: Any) -> None:
    images = np.stack([scene(seed, (64, 96), objects=2 * seed) for seed in range(12)])
    found = windowed.onnx(images)
    assert set(found.complete.tolist()) == {True, False}
    assert_same(found, windowed.pytorch(images))


def test_every_detector_passed_its_own_parity_check(case: Any) -> None:
    parity = case.result["parity"]
    assert parity["passed"] is True
    assert parity["agree"] == parity["total"] > 100


class Scores(nn.Module):
    """The part of a detector that differs between methods."""

    def __init__(self, loss: str, classifier: str) -> None:
        super().__init__()
        counts = np.arange(1, 12) ** 2
        torch.manual_seed(0)
        self.loss = LOSSES.build(loss, ClassStatistics(counts, counts, 500, np.minimum(np.arange(11) // 4, 2)))
        self.classifier = build_classifier(classifier, 16, self.loss.num_logits)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        return self.loss.scores(self.classifier(features))


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
@pytest.mark.parametrize("loss", LOSSES)
def test_scores_of_every_method(loss: str, classifier: str) -> None:
    module = Scores(loss, classifier).eval()
    axes = ({0: torch.export.Dim("rows", min=1)},)
    program = torch.onnx.export(module, (torch.randn(2, 16),), dynamic_shapes=axes, opset_version=18, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    # From rows of zeros to saturated ones.
    features = torch.randn(60, 16) * torch.logspace(-3, 4, 60)[:, None]
    features[0] = 0
    (found,) = session.run(None, {session.get_inputs()[0].name: features.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), module(features).detach(), atol=1e-5, rtol=1e-4)
