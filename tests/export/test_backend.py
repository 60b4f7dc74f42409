"""Opening and running exported files: devices, fixed sizes, settings, and files that are none of ours."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from aegl.config import Config
from aegl.errors import ExportError, RunError
from aegl.export.backend import OnnxBackend
from aegl.runtime.session import CPU, CUDA, open_session


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A valid ONNX file of someone else."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "graph", [value], [other])
    opsets = [onnx.helper.make_opsetid("", 18)]
    path = tmp_path / "foreign.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        OnnxBackend(path, device="cpu")
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_foreign_file_is_refused(foreign: Path) -> None:
    assert_refused(foreign, "not one written by `aegl export`")


@pytest.mark.parametrize("content", ["", "weights: none\n"])
def test_a_text_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_text(content)
    assert_refused(path, "complete ONNX file|lacks the metadata")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(plain: Any, tmp_path: Path, share: float) -> None:
    content, path = plain.path.read_bytes(), tmp_path / "model.onnx"
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(path, "complete ONNX file")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.onnx", "no such ONNX file")
    assert_refused(tmp_path, "no such ONNX file")


@pytest.mark.parametrize("stored", ["no json", "[]", "{}", json.dumps({"meta": {}, "config": {}, "canvas": None})])
def test_damaged_metadata_is_refused(foreign: Path, stored: str) -> None:
    model = onnx.load(foreign)
    onnx.helper.set_model_props(model, {"aegl": stored})
    onnx.save(model, foreign)
    assert_refused(foreign, "export the model anew")


def test_a_smaller_image_is_padded_to_a_fixed_size(windowed: Any, scene: Any) -> None:
    small = np.stack([scene(1, (32, 64)), scene(2, (32, 64))])
    canvas = np.empty((2, 3, 64, 96), dtype=np.uint8)
    canvas[:] = np.array(windowed.meta.pad_value)[:, None, None]
    canvas[:, :, :32, :64] = small
    found, expected = windowed.onnx(small), windowed.onnx(canvas)
    for name in vars(expected):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert int(found.num_detections.min()) > 0


@pytest.mark.parametrize("size", [(96, 64), (64, 128), (96, 96)])
def test_a_larger_image_is_refused_by_a_fixed_size(windowed: Any, scene: Any, size: tuple[int, int]) -> None:
    with pytest.raises(ExportError, match=f"64x96 .*got {size[0]}x{size[1]}; export with"):
        windowed.onnx(scene(0, size)[None])


def test_what_onnx_runtime_cannot_do_is_one_message(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(onnxruntime.InferenceSession):
        def run(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("failed to broadcast\nmore lines")

    monkeypatch.setattr(onnxruntime, "InferenceSession", Failing)
    message = r"plain\.onnx: ONNX Runtime failed on .* \[1, 3, 64, 96\] \(failed to broadcast\)$"
    with pytest.raises(RunError, match=message):
        OnnxBackend(plain.path, device="cpu")(np.zeros((1, 3, 64, 96), dtype=np.uint8))


def asked(case: Any, **changes: Any) -> Config:
    """The configuration that the file was exported with, changed."""
    return Config.model_validate({**case.onnx.config, "max_det": case.meta.max_det, **changes})


def test_settings_the_graph_follows_are_accepted(plain: Any) -> None:
    for conf, max_det in ((None, 20), (0.3, 20), (0.9, 1)):
        plain.onnx.require(asked(plain, conf=conf, max_det=max_det))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iou": 0.6}, r"iou=0\.6: .* was exported with iou=0\.5; export it anew"),
        ({"max_det": 21}, r"max_det=21: .* was exported with max_det=20; export it anew"),
        ({"nms_candidates": 7}, r"nms_candidates=7: .* was exported with nms_candidates=\d+; export it anew"),
        (
            {"calibrate": {"name": "norcal"}},
            r"calibrate=.*norcal.*: .* was exported with calibrate=.*none.*; export it anew",
        ),
        ({"conf": 0.29}, r"conf=0\.29: .* was exported with conf=0\.3; export it anew"),
    ],
)
def test_settings_fixed_in_the_graph_are_refused(plain: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        plain.onnx.require(asked(plain, **changes))


def test_float_images_are_taken_too(plain: Any, scene: Any) -> None:
    images = scene(0, (64, 96))[None]
    a, b = plain.onnx(images), plain.onnx(images.astype(np.float64))
    assert torch.equal(a.scores, b.scores)


@pytest.mark.parametrize("device", ["tpu", "", "cuda:x", "cuda:-1", "cuda:", "cudafoo", "CPU", "cuda:0 "])
def test_unknown_devices_are_refused(plain: Any, device: str) -> None:
    with pytest.raises(ExportError, match=r"device=.*: must be auto, cpu, cuda or cuda:N"):
        open_session(plain.path, device=device)


def test_cpu_is_cpu(plain: Any) -> None:
    assert open_session(plain.path, device="cpu", threads=1).get_providers() == [CPU]


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the package for CPUs."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])


@pytest.fixture
def broken_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers CUDA and fails on it, as for a GPU that is not there."""
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, providers: list[Any], **keys: Any) -> Any:
        if providers != [CPU] and not keys.get("enable_fallback", 1):
            raise RuntimeError("CUDA failure 101: invalid device ordinal\nmore lines")
        if providers != [CPU]:
            print("EP Error")  # noqa: T201  (what the Python package does unless told not to)
        return real(path, options, providers=[CPU], **keys)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)


@pytest.fixture
def silent_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers CUDA and quietly comes up without it, as where its libraries are missing."""
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, providers: list[Any], **keys: Any) -> Any:
        return real(path, options, providers=[CPU], **keys)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)


REASONS = [
    ("without_cuda", "has no CUDA provider; install onnxruntime-gpu"),
    ("broken_cuda", "CUDA failure 101: invalid device ordinal$"),
    ("silent_cuda", "its cuDNN or a GPU driver is missing"),
]


@pytest.mark.parametrize(("situation", "reason"), REASONS)
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_that_does_not_come_up_is_an_error(
    request: pytest.FixtureRequest, plain: Any, situation: str, reason: str, device: str
) -> None:
    request.getfixturevalue(situation)
    with pytest.raises(ExportError, match=f"device={device}: the CUDA provider did not come up: .*{reason}"):
        open_session(plain.path, device=device)


@pytest.mark.parametrize(("situation", "reason"), REASONS)
def test_auto_then_runs_on_the_cpu_and_says_so(
    request: pytest.FixtureRequest,
    plain: Any,
    situation: str,
    reason: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    request.getfixturevalue(situation)
    with caplog.at_level(logging.INFO, logger="aegl"):
        session = open_session(plain.path, device="auto")
    assert session.get_providers() == [CPU]
    (record,) = caplog.records
    assert str(plain.path) in record.getMessage()
    assert reason.rstrip("$") in record.getMessage()
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_the_installed_package_on_a_machine_without_cuda(
    plain: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        ExportError, match=r"device=cuda: the CUDA provider did not come up: .*(onnxruntime-gpu|driver)"
    ):
        open_session(plain.path, device="cuda")
    with caplog.at_level(logging.INFO, logger="aegl"):
        assert OnnxBackend(plain.path).meta == plain.meta
    assert "runs on the CPU" in caplog.text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("situation", [name for name, _ in REASONS])
def test_a_broken_file_is_not_blamed_on_cuda(request: pytest.FixtureRequest, tmp_path: Path, situation: str) -> None:
    request.getfixturevalue(situation)
    path = tmp_path / "model.onnx"
    path.write_text("no ONNX")
    with pytest.raises(ExportError, match="is it a complete ONNX file"):
        open_session(path, device="cuda")


def test_meta_of_another_version_is_named(plain: Any, tmp_path: Path) -> None:
    """A field that a later version adds is missing in today's file."""
    model, path = onnx.load(plain.path), tmp_path / "model.onnx"
    known = plain.meta.to_dict()
    del known["pixel_std"]
    onnx.helper.set_model_props(model, {"aegl": json.dumps({"meta": known, "config": {}, "canvas": None})})
    onnx.save(model, path)
    assert_refused(path, "pixel_std")
