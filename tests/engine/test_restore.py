"""Models from checkpoints: the same answers again, and only what fits as a start for another training."""

import logging
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from aegl.config import Config
from aegl.engine.checkpoint import Checkpoint, TrainingState, load_checkpoint, save_checkpoint
from aegl.engine.restore import load_torch_backend, rebuild_model, start_from
from aegl.engine.speed import place
from aegl.errors import CheckpointError
from aegl.models.factory import build_model
from aegl.models.mask_rcnn import MaskRCNN

TINY: dict[str, Any] = {
    "pretrained": False,
    "backbone": {"name": "resnet10t", "frozen_stages": -1, "norm": "batch"},
    "neck": {"channels": 16},
    "box": {"hidden": 32},
    "mask": {"channels": 8, "convs": 1},
    "rpn": {"pre_nms_train": 60, "post_nms_train": 30, "pre_nms_test": 60, "post_nms_test": 30},
    "conf": 0.01,
    "max_det": 10,
    "loss": {"name": "softmax_ce"},
}


def build(toy: ModuleType, **changes: Any) -> tuple[MaskRCNN, Config]:
    config = Config.model_validate({**TINY, **changes})
    return build_model(config, toy.STATISTICS), config


@pytest.fixture(scope="module")
def checkpoint(toy: ModuleType) -> Checkpoint:
    torch.manual_seed(0)
    model, config = build(toy)
    meta = replace(toy.META, conf=0.01, max_det=10, stride=32)
    return Checkpoint(model.state_dict(), meta, toy.STATISTICS, config.model_dump(mode="json"), 5, {})


def test_backend_of_a_file_answers_as_the_model(toy: ModuleType, checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / "best.pt")
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96), dtype=np.uint8)
    model, _ = build(toy)
    model.load_state_dict(checkpoint.model)
    with torch.no_grad():
        expected = place(model.eval(), torch.device("cpu"))(torch.from_numpy(images))
    found = load_torch_backend(tmp_path / "best.pt")(images)
    assert found.boxes.shape == (2, 10, 4)
    assert all(torch.equal(getattr(found, name), value) for name, value in vars(expected).items())


def test_operating_point_can_be_changed(checkpoint: Checkpoint) -> None:
    asked = Config.model_validate({**TINY, "conf": 0.4, "max_det": 7, "nms_candidates": 50})
    model, meta = rebuild_model(checkpoint, asked)
    assert (meta.conf, meta.max_det, meta.iou) == (0.4, 7, 0.5)
    assert (model.postprocess.conf, model.postprocess.max_det, model.postprocess.nms_candidates) == (0.4, 7, 50)


def test_averaged_weights_are_used(checkpoint: Checkpoint) -> None:
    average = {name: value + 1 if value.is_floating_point() else value for name, value in checkpoint.model.items()}
    state = TrainingState({}, {}, {"weights": average, "updates": 3}, 5, 5, [], -1, None)
    model, _ = rebuild_model(replace(checkpoint, training=state))
    assert torch.equal(model.box_head.fc1.weight, checkpoint.model["box_head.fc1.weight"] + 1)


def test_weights_that_do_not_fit_their_configuration(checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="do not fit its configuration"):
        rebuild_model(replace(checkpoint, model={"x": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="configuration in the checkpoint"):
        rebuild_model(replace(checkpoint, config={"no_such_key": 1}))


@pytest.mark.parametrize(
    ("changes", "meta_changes", "reset", "fresh", "reason"),
    [
        ({}, {}, [], set(), ""),
        ({}, {}, ["box_head.classifier"], {"box_head.classifier"}, "stage.reset asks for it"),
        ({}, {}, ["rpn.conv", "rpn.deltas"], {"rpn.conv", "rpn.deltas"}, "4 other tensors"),
        ({"loss": {"name": "sigmoid_bce"}}, {}, [], {"box_head.classifier"}, "number of logits"),
        ({"box": {"hidden": 32, "classifier": "cosine"}}, {}, [], {"box_head.classifier"}, "linear and is cosine"),
        (
            {},
            {"names": ("ant", "bee", "dog")},
            [],
            {"box_head.classifier", "box_head.regressor", "mask_head.predictor"},
            "classes differ",
        ),
        (
            {"mask": {"channels": 8, "convs": 1, "class_agnostic": True}},
            {},
            [],
            {"mask_head.predictor"},
            "",
        ),
    ],
)
def test_start_from_another_run(
    toy: ModuleType,
    checkpoint: Checkpoint,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    meta_changes: dict[str, Any],
    reset: list[str],
    fresh: set[str],
    reason: str,
) -> None:
    torch.manual_seed(1)
    model, config = build(toy, **changes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # Shifted, since two fresh models agree in their norm layers and biases.
    other = {name: value + 0.5 if value.is_floating_point() else value for name, value in checkpoint.model.items()}
    with caplog.at_level(logging.INFO, logger="aegl"):
        meta = replace(checkpoint.meta, **meta_changes)
        start_from(model, meta, replace(checkpoint, model=other), classifier=config.box.classifier, reset=reset)
    after = {name: value for name, value in model.state_dict().items() if name.endswith(("weight", "bias"))}
    kept = {name for name, value in after.items() if torch.equal(before[name], value)}
    assert {name.rpartition(".")[0] for name in kept} == fresh
    assert all(torch.equal(value, other[name]) for name, value in after.items() if name not in kept)
    assert reason in caplog.text


def test_the_trained_file_of_a_real_model_is_small(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / "best.pt")
    weights = sum(
        value.numel() * value.element_size() for value in load_checkpoint(tmp_path / "best.pt").model.values()
    )
    assert (tmp_path / "best.pt").stat().st_size < 1.1 * weights + 100_000
