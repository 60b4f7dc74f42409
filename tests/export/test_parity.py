"""The parity report: it must pass a true file, and tell every kind of wrong one."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from aegl.engine.backend import TorchBackend
from aegl.export.parity import CaseReport, ParityReport, check_parity
from aegl.export.parity_cases import parity_cases
from aegl.types import Detections

Change = Callable[[Detections], Detections]


def changed(case: Any, change: Change) -> Any:
    """The report on a file whose answers are changed on their way."""
    return check_parity(case.pytorch, lambda images: change(case.onnx(images)), case.meta)


def shifted(found: Detections) -> Detections:
    return replace(found, boxes=found.boxes + 1.0)


def relabelled(found: Detections) -> Detections:
    return replace(found, labels=torch.where(found.labels >= 0, (found.labels + 1) % 7, -1))


def without_masks(found: Detections) -> Detections:
    return replace(found, masks=torch.zeros_like(found.masks))


def scored_lower(found: Detections) -> Detections:
    return replace(found, scores=0.98 * found.scores)


def without_the_first(found: Detections) -> Detections:
    """Of each image."""
    fields = {name: getattr(found, name)[:, 1:] for name in ("boxes", "scores", "labels", "masks")}
    return replace(found, num_detections=(found.num_detections - 1).clamp(min=0), **fields)


def with_everything_twice(found: Detections) -> Detections:
    fields = {name: torch.cat([getattr(found, name)] * 2, 1) for name in ("boxes", "scores", "labels", "masks")}
    return replace(found, num_detections=2 * found.num_detections, **fields)


def images_swapped(found: Detections) -> Detections:
    return Detections(*(getattr(found, name).flip(0) for name in vars(found)))


def not_numbers(found: Detections) -> Detections:
    return replace(found, masks=found.masks * float("nan"), scores=found.scores * float("nan"))


def reordered(found: Detections) -> Detections:
    """The real rows, last first."""
    rows = torch.arange(found.scores.shape[1]).expand_as(found.scores)
    count = found.num_detections[:, None]
    order = torch.where(rows < count, count - 1 - rows, rows)
    image = torch.arange(len(order))[:, None]
    return replace(
        found, **{name: getattr(found, name)[image, order] for name in ("boxes", "scores", "labels", "masks")}
    )


def test_a_true_file_passes(plain: Any) -> None:
    report = check_parity(plain.pytorch, plain.onnx, plain.meta)
    assert report.passed is True
    assert report.agree == report.total > 100
    for case in report.cases:
        assert case.box_error < 1e-2
        assert case.score_error < 1e-4
        assert case.mask_error < 1e-3
        assert case.disputed is None


def test_order_does_not_matter(plain: Any) -> None:
    assert changed(plain, reordered).passed is True


@pytest.mark.parametrize(
    "change",
    [
        shifted,
        relabelled,
        without_masks,
        scored_lower,
        without_the_first,
        with_everything_twice,
        images_swapped,
        not_numbers,
    ],
)
def test_wrong_answers_fail(plain: Any, change: Change) -> None:
    report = changed(plain, change)
    assert report.passed is False
    assert "FAILED" in report.text().splitlines()[0]
    assert any(case.disputed is not None and case.disputed > 0.3 for case in report.cases)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["passed"] is False


@pytest.mark.parametrize("part", ["backbone", "neck", "rpn", "box_head.classifier", "box_head.regressor", "mask_head"])
def test_other_weights_fail(plain: Any, part: str) -> None:
    """Of any part, by a few per cent."""
    model = copy.deepcopy(plain.model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in model.get_submodule(part).parameters():
            weights.mul_(1 + 0.05 * torch.randn_like(weights))
    report = check_parity(TorchBackend(model, plain.meta), plain.onnx, plain.meta)
    assert report.passed is False


def test_the_report_says_by_how_much(plain: Any) -> None:
    def errors(change: Change) -> tuple[float, float, float]:
        cases = changed(plain, change).cases
        return tuple(max(getattr(case, name) for case in cases) for name in ("box_error", "score_error", "mask_error"))

    box, score, mask = errors(shifted)
    assert (box == pytest.approx(1, abs=0.01)) and score < 1e-4 and mask < 1e-3
    box, score, mask = errors(scored_lower)
    assert box < 1e-2 and 0.01 < score <= 0.0201 and mask < 1e-3
    box, score, mask = errors(without_masks)
    assert box < 1e-2 and score < 1e-4 and mask > 0.5


def test_a_missing_detection_is_counted_and_its_score_named(plain: Any) -> None:
    full = next(images for name, images in parity_cases(plain.meta, None) if name == "full")
    best = float(plain.pytorch(full).scores.max())
    report = changed(plain, without_the_first)
    case = next(case for case in report.cases if case.name == "full")
    assert (case.agree, case.total) == (19, 20)
    assert case.disputed == pytest.approx(best)
    assert f"best of the 1 others scores {best:.3g}" in case.text()


def test_other_images_may_be_compared(plain: Any, scene: Any) -> None:
    images = [("a", scene(0, (64, 96))[None]), ("b", np.stack([scene(1, (96, 64)), scene(2, (96, 64))]))]
    report = check_parity(plain.pytorch, plain.onnx, plain.meta, cases=iter(images))
    assert [case.name for case in report.cases] == ["a", "b"]
    assert report.passed is True
    assert report.total == sum(int(plain.pytorch(batch).num_detections.sum()) for _, batch in images)


def test_every_case_has_its_line(plain: Any) -> None:
    report = check_parity(plain.pytorch, plain.onnx, plain.meta)
    first, *lines = report.text().splitlines()
    assert first == f"parity passed: {report.agree} of {report.total} detections agree between PyTorch and ONNX Runtime"
    assert len(lines) == len(report.cases) == 8
    for line, case in zip(lines, report.cases, strict=True):
        assert line.strip().startswith(case.name)
        assert re.search(rf"\b{case.agree} of {case.total} agree, box error .* px, score error .*, mask error ", line)


def test_a_report_is_json(plain: Any) -> None:
    report = check_parity(plain.pytorch, plain.onnx, plain.meta).to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["agree"] == sum(case["agree"] for case in report["cases"])


def test_nothing_to_compare_is_no_proof(plain: Any) -> None:
    def nothing(images: np.ndarray) -> Detections:
        found = plain.pytorch(images)
        return replace(found, num_detections=torch.zeros_like(found.num_detections))

    report = check_parity(nothing, nothing, plain.meta)
    assert (report.passed, report.total) == (None, 0)
    assert "NOT SHOWN" in report.text()
    assert "conf=" in report.text()
    assert report.to_dict()["passed"] is None
    assert check_parity(nothing, plain.onnx, plain.meta).passed is False
    assert check_parity(plain.pytorch, nothing, plain.meta).passed is False


def test_cases_cover_sizes_batches_and_repetition(plain: Any) -> None:
    cases = dict(parity_cases(plain.meta, None))
    sizes = {images.shape[2:] for images in cases.values()}
    assert (32, 32) in sizes
    assert max(width for _, width in sizes) > plain.meta.max_size
    assert any(width >= 8 * height for height, width in sizes)
    assert {len(images) for images in cases.values()} == {1, 3}
    assert np.array_equal(cases["blank"], cases["blank after full"])
    for images in cases.values():
        assert images.dtype == np.uint8
        assert all(side % plain.meta.stride == 0 for side in images.shape[2:])


def test_cases_of_a_fixed_size_keep_to_it(plain: Any) -> None:
    assert {images.shape[1:] for _, images in parity_cases(plain.meta, (64, 96))} == {(3, 64, 96)}


def test_no_two_places_of_a_case_are_alike(plain: Any) -> None:
    """Where two are, their scores tie, and a true file would fail by chance."""
    for name, images in parity_cases(plain.meta, None):
        batch, _, height, width = images.shape
        patches = images.reshape(batch, 3, height // 16, 16, width // 16, 16).transpose(0, 2, 4, 1, 3, 5)
        patches = patches.reshape(-1, 3 * 16 * 16)
        assert len(np.unique(patches, axis=0)) == len(patches), name


@pytest.mark.parametrize(
    ("agree", "disputed", "passed"),
    [(1000, None, True), (999, 0.9, True), (627, 0.01, True), (627, 0.2, False), (590, 0.01, False), (0, None, None)],
)
def test_what_passes(agree: int, disputed: float | None, passed: bool | None) -> None:
    total = {1000: 1000, 999: 1000, 0: 0}.get(agree, 629)
    case = CaseReport("x", agree, total, 0.0, 0.0, 0.0, disputed)
    assert ParityReport((case,)).passed is passed
