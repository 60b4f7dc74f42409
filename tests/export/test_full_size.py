"""Parity at the sizes and numbers of a real evaluation: 300 detections of more candidates, on 800x1333."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegl.data.preprocess import Preprocess
from aegl.export.parity import check_parity
from aegl.runtime import Runtime

MAX_DET = 300


@pytest.fixture(scope="module")
def crowded(shared_folder: Path, small_model: Any, make_case: Any) -> Any:
    """The plain detector with as many proposals and detections as a real one."""
    model = small_model(max_det=MAX_DET, conf=0.01, rpn={"pre_nms_test": 400, "post_nms_test": 400})
    return make_case(shared_folder, "crowded", model)


def compared(case: Any, images: np.ndarray) -> Any:
    """The report on one batch."""
    return check_parity(case.pytorch, case.onnx, case.meta, cases=[("these", images)])


@pytest.mark.parametrize(("image", "network"), [((240, 400), (800, 1344)), ((400, 240), (1344, 800))])
def test_800_by_1333_with_as_many_detections_as_may_be_given(
    crowded: Any, scene: Any, image: tuple[int, int], network: tuple[int, int]
) -> None:
    preprocess = Preprocess(800, 1333, crowded.meta.stride, crowded.meta.pad_value)
    resized, _, _ = preprocess.resize(scene(0, image, objects=400).transpose(1, 2, 0))
    images = preprocess.pad_batch([resized])
    assert images.shape == (1, 3, *network)
    found = crowded.onnx(images)
    assert found.num_detections.tolist() == [MAX_DET]
    assert compared(crowded, images).passed


@pytest.mark.parametrize(("image", "network"), [((24, 1333), (32, 1344)), ((1333, 24), (1344, 32))])
def test_a_strip_as_long_as_images_may_be(
    crowded: Any, scene: Any, image: tuple[int, int], network: tuple[int, int]
) -> None:
    preprocess = Preprocess(800, 1333, crowded.meta.stride, crowded.meta.pad_value)
    resized, _, _ = preprocess.resize(scene(0, image, objects=40).transpose(1, 2, 0))
    images = preprocess.pad_batch([resized])
    assert images.shape == (1, 3, *network)
    report = compared(crowded, images)
    assert report.passed
    assert report.total > 8


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_more_objects_than_detections_in_every_image(crowded: Any, scene: Any, batch: int) -> None:
    images = np.stack([scene(seed, (128, 192), objects=320) for seed in range(batch)])
    assert crowded.onnx(images).num_detections.tolist() == [MAX_DET] * batch
    assert compared(crowded, images).passed


def test_full_and_blank_images_take_turns_in_one_session(crowded: Any, scene: Any) -> None:
    runtime = Runtime(Path(crowded.path), "cpu")
    blank = np.broadcast_to(np.array(crowded.meta.pad_value, dtype=np.uint8)[:, None, None], (3, 128, 192))[None]
    full = scene(1, (128, 192), objects=320)[None]
    answers = [runtime.run(images) for images in (blank, full, blank, full)]
    assert int(answers[1]["num_detections"][0]) == MAX_DET
    for first, again in ((0, 2), (1, 3)):
        for name, values in answers[first].items():
            np.testing.assert_array_equal(answers[again][name], values)
