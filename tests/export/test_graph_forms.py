"""The forms of an exported graph: they change what it takes and gives, never what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser

from aegl.data.run_lengths import decode
from aegl.export import graph_forms
from aegl.export.backend import OnnxBackend
from aegl.export.graph_forms import GraphForm, apply_form, prune
from aegl.export.parity import check_parity, with_masks_as
from aegl.runtime import Runtime
from aegl.runtime.masks import paste_and_encode

FORMS = [GraphForm(masks, preprocess) for masks in ("roi", "paste", "none") for preprocess in (False, True)]  # type: ignore[arg-type]
SIZES = {"small": (32, 32), "usual": (64, 96), "very wide": (32, 640), "very tall": (640, 32)}
_CPU = ["CPUExecutionProvider"]


def in_form(path: Path, form: GraphForm, folder: Path) -> Path:
    """The file in another form."""
    proto = onnx.load(path)
    apply_form(proto, form)
    onnx.checker.check_model(proto, full_check=True)
    changed = folder / "changed.onnx"
    onnx.save(proto, changed)
    return changed


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_finds_the_same(case: Any, form: GraphForm, scene: Any, tmp_path: Path) -> None:
    runtime = Runtime(in_form(case.path, form, tmp_path), "cpu")
    for batch in (1, 3):
        images = np.stack([scene(seed, (64, 96), objects=5 * seed) for seed in range(batch)])
        found, usual = runtime.run(images), Runtime(case.path, "cpu").run(images)
        assert tuple(found) == form.outputs
        for name in set(found) - {"masks"}:
            np.testing.assert_array_equal(found[name], usual[name])


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_passes_the_parity_check(plain: Any, form: GraphForm, tmp_path: Path) -> None:
    backend = OnnxBackend(in_form(plain.path, form, tmp_path), device="cpu")
    report = check_parity(plain.pytorch, backend, plain.meta, masks=form.masks)
    assert report.passed
    assert report.agree == report.total > 100


def test_masks_that_were_pasted_wrong_are_told(plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_forms, "_THRESHOLD", 0.6)
    backend = OnnxBackend(in_form(plain.path, GraphForm("paste"), tmp_path), device="cpu")
    assert not check_parity(plain.pytorch, backend, plain.meta, masks="paste").passed


def test_stored_images_are_taken_as_they_are(case: Any, scene: Any, tmp_path: Path) -> None:
    path = in_form(case.path, GraphForm(preprocess=True), tmp_path)
    (images,) = onnx.load(path).graph.input
    shape = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    usual = [dim.dim_param or dim.dim_value for dim in onnx.load(case.path).graph.input[0].type.tensor_type.shape.dim]
    assert images.name == "images"
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert shape == [usual[0], usual[2], usual[3], 3]
    picture = np.ascontiguousarray(scene(0, (64, 96))[None].transpose(0, 2, 3, 1))
    session = onnxruntime.InferenceSession(str(path), providers=_CPU)
    (scores,) = session.run(["scores"], {"images": picture})
    np.testing.assert_array_equal(scores, Runtime(case.path, "cpu").run(picture.transpose(0, 3, 1, 2))["scores"])


def test_without_masks_nothing_of_their_branch_is_left(plain: Any, tmp_path: Path) -> None:
    path = in_form(plain.path, GraphForm("none"), tmp_path)
    proto, usual = onnx.load(path), onnx.load(plain.path)
    assert any("mask_head" in tensor.name for tensor in usual.graph.initializer)
    assert not any("mask_head" in tensor.name for tensor in proto.graph.initializer)
    operators = [node.op_type for node in proto.graph.node]
    assert "MatMul" in {node.op_type for node in usual.graph.node} - set(operators)
    assert 2 * operators.count("RoiAlign") == [node.op_type for node in usual.graph.node].count("RoiAlign")
    assert path.stat().st_size < plain.path.stat().st_size


@pytest.mark.parametrize("at_once", [3, 20, 50])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_pasted_masks_are_those_of_the_predictor(
    plain: Any, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], at_once: int
) -> None:
    monkeypatch.setattr(graph_forms, "_PASTED_AT_ONCE", at_once)
    runtime = Runtime(in_form(plain.path, GraphForm("paste"), tmp_path), "cpu")
    images = np.stack([scene(20, size, objects=15), scene(21, size, objects=3)])
    found = runtime.run(images)["masks"]
    assert found.dtype == bool
    assert found.shape == (2, plain.meta.max_det, *size)
    expected = with_masks_as("paste", plain.pytorch(images), images).masks.numpy()
    assert expected.any()
    assert (found != expected).sum() <= 2  # pixels at the threshold


def pasting_graph(number: int, side: int) -> Any:
    """A model that is given boxes and masks, to be pasted."""
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]>\n'
        f"graph (float[batch, 3, rows, columns] images, float[batch, {number}, 4] b, "
        f"float[batch, {number}, {side}, {side}] m) => "
        f"(float[batch, {number}, 4] boxes, float[batch, {number}, {side}, {side}] masks) "
        "{ boxes = Identity (b) masks = Identity (m) }"
    )
    apply_form(proto, GraphForm("paste"))
    return onnxruntime.InferenceSession(proto.SerializeToString(), providers=_CPU)


PASTING = pasting_graph(4, 5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_box_is_pasted_by_the_rule_of_the_predictor(data: st.DataObject) -> None:
    coordinate = st.floats(-40, 80, width=32)
    corner = st.tuples(coordinate, coordinate, st.floats(0, 60, width=32), st.floats(0, 60, width=32))
    boxes = np.array(data.draw(st.lists(corner, min_size=4, max_size=4)), dtype=np.float32)
    boxes[:, 2:] += boxes[:, :2]
    boxes[(boxes[:, 2:] - boxes[:, :2] < 0.05).any(1)] = 0
    masks = np.random.default_rng(data.draw(st.integers(0, 99))).random((4, 5, 5), dtype=np.float32)
    masks[(boxes == 0).all(1)] = 0  # as padding is
    images = np.zeros((1, 3, 32, 64), dtype=np.float32)
    (found,) = PASTING.run(["masks"], {"images": images, "b": boxes[None], "m": masks[None]})
    expected = np.stack([decode(mask) for mask in paste_and_encode(masks, boxes, 32, 64)])
    assert (found[0] != expected).sum() <= 4


def test_pruning_leaves_what_is_needed_and_nothing_else() -> None:
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]>\n'
        "graph (float[2] x) => (float[2] y) <float[2] used = {1, 2}, float[2] unused = {3, 4}> "
        "{ a = Add (x, used) b = Mul (x, unused) c = Neg (b) y = Relu (a) }"
    )
    prune(proto.graph)
    assert [node.op_type for node in proto.graph.node] == ["Add", "Relu"]
    assert [tensor.name for tensor in proto.graph.initializer] == ["used"]
