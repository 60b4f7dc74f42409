from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from aegl.config.schema import Config
from aegl.longtail.statistics import ClassStatistics
from aegl.models.factory import build_model
from aegl.models.mask_rcnn import MaskRCNN
from aegl.types import Targets

NUM_CLASSES = 7


def tiny_model(**changes: Any) -> MaskRCNN:
    """A Mask R-CNN small enough for tests."""
    values: dict[str, Any] = {
        "pretrained": False,
        "backbone": {"name": "test_resnet", "norm": "batch", "frozen_stages": -1},
        "neck": {"channels": 16, "first_level": 3, "extra_level": False, "anchor_scale": 4.0, "anchor_ratios": [1.0]},
        "rpn": {
            "batch_per_image": 32,
            "pre_nms_train": 50,
            "pre_nms_test": 50,
            "post_nms_train": 20,
            "post_nms_test": 20,
        },
        "roi": {"batch_per_image": 16},
        "box": {"hidden": 32, "pool": 3},
        "mask": {"channels": 8, "convs": 1, "pool": 4},
        "max_det": 20,
        "conf": 0.05,
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    counts = np.arange(1, NUM_CLASSES + 1) * 4
    stats = ClassStatistics(counts, counts, 50, np.minimum(np.arange(NUM_CLASSES) // 2, 2))
    torch.manual_seed(0)
    return build_model(Config.model_validate({"loss": {"name": "softmax_ce"}, **values}), stats)


def make_targets(boxes: list[list[list[float]]], labels: list[list[int]], size: int = 28) -> Targets:
    most = max(len(image) for image in boxes)
    targets = Targets(
        torch.zeros(len(boxes), most, 4),
        torch.full((len(boxes), most), -1),
        torch.zeros(len(boxes), most, size, size, dtype=torch.uint8),
        torch.tensor([len(image) for image in boxes]),
    )
    for row, (image, names) in enumerate(zip(boxes, labels, strict=True)):
        if image:
            targets.boxes[row, : len(image)] = torch.tensor(image)
            targets.labels[row, : len(image)] = torch.tensor(names)
            targets.masks[row, : len(image)] = 1
    return targets


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8, generator=generator)


@pytest.fixture(name="tiny_model")
def _tiny_model() -> Any:
    return tiny_model


@pytest.fixture(name="make_targets")
def _make_targets() -> Any:
    return make_targets
