"""What an exported file holds, and that nothing else ever lies at its path."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

import aegl
from aegl.errors import ExportError, RunError
from aegl.export.onnx_graph import export_onnx
from aegl.export.opsets import DEFAULT_OPSET, NEWEST_OPSET, choose_opset
from aegl.runtime.graph import OUTPUTS

TYPES = {
    "boxes": (onnx.TensorProto.FLOAT, ["batch", 20, 4]),
    "scores": (onnx.TensorProto.FLOAT, ["batch", 20]),
    "labels": (onnx.TensorProto.INT64, ["batch", 20]),
    "masks": (onnx.TensorProto.FLOAT, ["batch", 20, 8, 8]),
    "num_detections": (onnx.TensorProto.INT64, ["batch"]),
    "complete": (onnx.TensorProto.BOOL, ["batch"]),
}


def described(value: Any) -> tuple[int, list[int | str]]:
    tensor = value.type.tensor_type
    return tensor.elem_type, [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]


def properties(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_outputs_have_their_names_types_and_axes(case: Any) -> None:
    graph = onnx.load(case.path).graph
    assert tuple(value.name for value in graph.output) == OUTPUTS
    assert {value.name: described(value) for value in graph.output} == TYPES


def test_batch_is_free_and_the_size_too_where_the_backbone_allows(plain: Any, windowed: Any) -> None:
    (images,) = onnx.load(plain.path).graph.input
    assert images.name == "images"
    dtype, shape = described(images)
    assert dtype == onnx.TensorProto.FLOAT
    assert shape == ["batch", 3, "32*rows", "32*columns"]
    (images,) = onnx.load(windowed.path).graph.input
    assert described(images) == (onnx.TensorProto.FLOAT, ["batch", 3, 64, 96])


def test_only_standard_operators(case: Any) -> None:
    model = onnx.load(case.path)
    assert [entry.domain for entry in model.opset_import] == [""]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert {"NonMaxSuppression", "RoiAlign"} <= {node.op_type for node in model.graph.node}


def test_the_file_is_valid_onnx(case: Any) -> None:
    onnx.checker.check_model(str(case.path), full_check=True)


def test_nothing_of_the_machine_that_wrote_it_is_in_the_file(case: Any) -> None:
    content = case.path.read_bytes()
    for trace in (str(Path(aegl.__file__).parent), "site-packages", ".py", "stack_trace"):
        assert trace.encode() not in content


def test_metadata_for_people_and_other_tools(plain: Any) -> None:
    found, meta = properties(plain.path), plain.meta
    assert json.loads(found["names"]) == {str(i): f"class {i}" for i in range(7)}
    assert json.loads(found["bands"]) == ["r", "r", "c", "c", "f", "f", "f"]
    assert json.loads(found["thresholds"]) == {"conf": 0.3, "iou": 0.5, "max_det": 20}
    for fact in ("RGB", "0..255", "64", "96", "multiples of 32", str(meta.pad_value)):
        assert fact in found["preprocessing"]
    assert found["method"] == "baseline"
    assert found["aegl_version"] == aegl.__version__
    assert onnx.load(plain.path).producer_version.startswith(torch.__version__.split("+")[0])


def test_the_file_gives_back_what_it_was_written_with(case: Any) -> None:
    assert case.onnx.meta == case.meta
    assert case.onnx.config == {"imgsz": 64, "nms_candidates": case.model.postprocess.nms_candidates}
    assert case.onnx.canvas == case.result["canvas"]


def test_opset_is_the_one_asked_for(plain: Any, many_classes: Any) -> None:
    assert onnx.load(plain.path).opset_import[0].version == DEFAULT_OPSET == plain.result["opset"]
    assert onnx.load(many_classes.path).opset_import[0].version == NEWEST_OPSET == many_classes.result["opset"]


@pytest.mark.parametrize("asked", [0, DEFAULT_OPSET - 1, NEWEST_OPSET + 1])
def test_other_opsets_are_refused(asked: int) -> None:
    with pytest.raises(ExportError, match=rf"opset={asked}: must be {DEFAULT_OPSET} to {NEWEST_OPSET}"):
        choose_opset(asked)


def test_window_attention_of_any_size_is_refused(windowed: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="give dynamic=false"):
        export_onnx(windowed.model, windowed.meta, tmp_path / "new.onnx", config={})


def test_weights_beyond_what_a_file_holds_are_refused(small_model: Any, plain: Any, tmp_path: Path) -> None:
    model = small_model()
    model.huge = torch.nn.Parameter(torch.empty(2**29, device="meta"))
    with pytest.raises(ExportError, match=r"2\.1 GB.*holds 2 GB"):
        export_onnx(model, plain.meta, tmp_path / "new.onnx", config={})


def test_a_graph_that_cannot_be_written_is_one_short_message(
    small_model: Any, plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model, path = small_model(), tmp_path / "model.onnx"
    path.write_text("older")
    forward = model.backbone.forward
    monkeypatch.setattr(model.backbone, "forward", lambda images: forward(images) if images.sum() > 0 else [])
    with pytest.raises(ExportError, match="dynamic=false") as caught:
        export_onnx(model, plain.meta, path, config={})
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")
    assert path.read_text() == "older"


@pytest.fixture
def rewrite(plain: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Exports the plain detector without tracing it again."""
    traced = SimpleNamespace(model_proto=onnx.load(plain.path))
    monkeypatch.setattr("aegl.export.onnx_graph._trace", lambda *_: traced)
    return lambda path: export_onnx(plain.model, plain.meta, path, config={})


def test_a_complete_file_replaces_an_older_one(rewrite: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("older")
    rewrite(path)
    onnx.checker.check_model(str(path))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_an_incomplete_file_does_not(rewrite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("older")

    def full_disk(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(RunError, match=r"model\.onnx: cannot be written \(No space left on device\)"):
        rewrite(path)
    assert path.read_text() == "older"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_an_invalid_graph_does_not(rewrite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("older")

    def invalid(*_: object, **__: object) -> None:
        raise onnx.checker.ValidationError("no such operator")

    monkeypatch.setattr(onnx.checker, "check_model", invalid)
    with pytest.raises(ExportError, match="no such operator"):
        rewrite(path)
    assert path.read_text() == "older"


def test_a_folder_that_does_not_exist_is_named(rewrite: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere"):
        rewrite(tmp_path / "nowhere" / "model.onnx")
