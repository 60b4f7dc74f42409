"""The shipped kinds of models in their full architecture, on small images: each exports and answers alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegl.config import load_config
from aegl.export.parity import check_parity

SMALLER = {"rpn.pre_nms_test": 60, "rpn.post_nms_test": 60, "max_det": 20, "conf": 0.3}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r50", "swin_t", "convnext_t"])
def test_a_shipped_model_exports_and_answers_alike(
    name: str, built_from: Any, make_case: Any, scene: Any, shared_folder: Path
) -> None:
    config = load_config({"model": name, "method": "fbs_aegl", "pretrained": False, **SMALLER})
    # A blank one too, or its scores may all be 1, and which of equal ones are kept is chance.
    blank = np.random.default_rng(0).integers(110, 125, (3, 64, 96), dtype=np.uint8)
    model = built_from(config, seen=[scene(0, (64, 96)), scene(1, (64, 96)), blank])
    case = make_case(shared_folder, name, model, dynamic=model.backbone.dynamic_size)
    parity = case.result["parity"]
    assert parity["passed"] is True, parity["text"]
    assert parity["total"] > 100
    batch = np.stack([scene(seed, (64, 96), objects=6 * seed) for seed in range(3)])
    report = check_parity(case.pytorch, case.onnx, case.meta, cases=[("batch of 3", batch), ("alone", batch[1:2])])
    assert report.passed is True, report.text()
    assert report.total > 20
