"""Files in half precision and int8: which parts they change, what they answer, and what AP that costs."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from aegl.config import Config, load_config
from aegl.data.preprocess import Preprocess
from aegl.data.source import resolve_data
from aegl.engine.backend import TorchBackend
from aegl.errors import ConfigError, DataError
from aegl.export.ap_delta import Judge, ap_text, ground_truth_of
from aegl.export.backend import OnnxBackend
from aegl.export.calibration import calibration_images, evenly
from aegl.export.half import in_half
from aegl.export.int8 import quantise
from aegl.export.pipeline import export_and_prove
from aegl.export.precision import Precision, choose_precision
from aegl.metrics import DetectionTable, GroundTruth, evaluate
from aegl.progress import SilentProgress

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
DECIDING = ("RoiAlign", "NonMaxSuppression", "TopK", "Exp", "Softmax", "Sigmoid")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small data set of seven classes, as the small detectors have."""
    shapes = {"classes": 7, "max_instances": 8, "imbalance": 4, "val_per_class": 3, "imgsz": 64}
    config = Config.model_validate({"shapes": shapes})
    return resolve_data("shapes_lt", data_dir=tmp_path_factory.mktemp("data"), shapes=config.shapes, bands=config.bands)


@pytest.fixture(scope="module")
def meta(plain: Any, source: Any) -> Any:
    categories = tuple(int(v) for v in source.open("val").categories.ids)
    return replace(plain.meta, category_ids=categories)


@pytest.fixture(scope="module")
def exported(plain: Any, meta: Any, source: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The plain detector in either precision."""
    folder, known = tmp_path_factory.mktemp("precision"), {}

    def export(name: Any) -> dict[str, Any]:
        if name not in known:
            store = source.open("val")
            paths = tuple(store.image_path(row) for row in range(3)) if name == "int8" else ()
            known[name] = export_and_prove(
                plain.model,
                meta,
                folder / f"{name}.onnx",
                config={},
                opset=None,
                dynamic=True,
                parity=True,
                progress=SilentProgress(),
                precision=Precision(name, paths, Judge(store, "val", "coco", 4)),
            )
        return known[name]

    return export


def types_of(proto: Any) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(proto).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def test_half_holds_the_layers_in_fp16_and_decides_in_fp32(exported: Any) -> None:
    proto = onnx.load(exported("fp16")["file"])
    types = types_of(proto)
    heavy = [node for node in proto.graph.node if node.op_type in ("Conv", "MatMul")]
    assert heavy
    assert {types[name] for node in heavy for name in node.input if name} == {HALF}
    products = [node for node in proto.graph.node if node.op_type == "Gemm"]
    assert Counter(types[node.input[1]] for node in products) == {HALF: 2, FLOAT: 2}
    deciding = [node for node in proto.graph.node if node.op_type in DECIDING]
    assert {node.op_type for node in deciding} >= {"RoiAlign", "NonMaxSuppression", "TopK"}
    assert {types[node.input[0]] for node in deciding} <= {FLOAT, onnx.TensorProto.INT64}
    ends = [value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)]
    assert HALF not in ends


def test_half_takes_half_the_space(exported: Any, plain: Any) -> None:
    weights = 4 * sum(parameter.numel() for parameter in plain.model.parameters())
    saved = plain.path.stat().st_size - Path(exported("fp16")["file"]).stat().st_size
    assert saved > 0.4 * weights


def test_the_model_itself_is_not_changed(plain: Any) -> None:
    in_half(plain.model)
    assert {parameter.dtype for parameter in plain.model.parameters()} == {torch.float32}
    assert not plain.model.box_pool._forward_pre_hooks


def test_int8_quantises_layers_and_nothing_else(exported: Any, plain: Any) -> None:
    graph = onnx.load(exported("int8")["file"]).graph
    produced = {name: node for node in graph.node for name in node.output}
    of_type: dict[str, list[bool]] = {}
    for node in graph.node:
        made_by = [produced[name].op_type for name in node.input[:2] if name in produced]
        of_type.setdefault(node.op_type, []).append(made_by == ["DequantizeLinear"] * 2)
    # Objectness and offsets of every level, and the two last layers of the box head, stay as they were.
    assert of_type["Conv"].count(False) == 2 * len(plain.model.rpn.anchors.strides)
    assert of_type["Gemm"].count(False) == 2
    assert of_type["Conv"].count(True) > 10
    assert of_type["Gemm"].count(True) == 2
    assert of_type["MatMul"] == [True, False]  # the deconvolution, and the product with each region's own class
    for name in ("RoiAlign", "NonMaxSuppression", "TopK", "Exp", "Sigmoid"):
        assert not any(of_type.get(name, []))


def test_int8_takes_a_third_of_the_space_at_most(exported: Any) -> None:
    stored = Counter[int]()
    for tensor in onnx.load(exported("int8")["file"]).graph.initializer:
        stored[tensor.data_type] += len(tensor.raw_data)
    assert stored[onnx.TensorProto.INT8] > stored[FLOAT]


@pytest.mark.parametrize("name", ["fp16", "int8"])
def test_each_passes_parity_at_its_own_tolerances_and_says_which(exported: Any, name: str) -> None:
    parity = exported(name)["parity"]
    assert parity["passed"] is True
    assert parity["total"] > 100
    assert parity["tolerances"]["box"] > 0.1
    assert json.loads(Path(exported(name)["report"]).read_text())["parity"] == parity


@pytest.mark.parametrize("name", ["fp16", "int8"])
def test_the_cost_in_ap_is_measured_stored_and_told(exported: Any, name: str) -> None:
    precision = exported(name)["precision"]
    assert json.loads(Path(exported(name)["report"]).read_text())["precision"] == precision
    ap = precision["ap"]
    assert (ap["split"], ap["images"], ap["protocol"]) == ("val", 4, "coco")
    for kind in ("box", "mask"):
        assert ap["delta"][kind] == ap[name][kind] - ap["fp32"][kind]
    assert precision["calibration_images"] == (3 if name == "int8" else 0)
    assert precision["text"].startswith(f"{name} against fp32: box AP ")


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", ["fp16", "int8"])
def test_batches_and_blank_images(exported: Any, plain: Any, scene: Any, name: str, batch: int) -> None:
    backend = OnnxBackend(Path(exported(name)["file"]), device="cpu")
    blank = np.broadcast_to(np.array(plain.meta.pad_value, dtype=np.uint8)[:, None, None], (3, 64, 96))
    images = np.stack([blank, *(scene(seed, (64, 96)) for seed in range(1, batch))])
    found = backend(images)
    for row in range(batch):
        alone = backend(images[row : row + 1])
        assert int(alone.num_detections[0]) == int(found.num_detections[row])
        torch.testing.assert_close(alone.scores[0], found.scores[row], atol=1e-3, rtol=0)


def scales(path: Path, images: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Of the file quantised on these images."""
    graph = quantise(onnx.load(path), images).graph
    return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer if "scale" in t.name}


def test_a_quantised_graph_follows_its_calibration(plain: Any, scene: Any) -> None:
    images = [scene(seed, (64, 96))[None].astype(np.float32) for seed in range(2)]
    bright, dim = scales(plain.path, images), scales(plain.path, [0.1 * image for image in images])
    changed = [name for name in bright if not np.array_equal(bright[name], dim[name])]
    assert changed
    assert not any("weight" in name for name in changed)


def test_the_quantiser_speaks_to_nobody(
    plain: Any, scene: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    quantise(onnx.load(plain.path), [scene(0, (64, 96))[None].astype(np.float32)])
    assert capsys.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize(("number", "most"), [(10, 3), (3, 10), (1, 1), (324, 200), (0, 5)])
def test_images_are_spread_evenly(number: int, most: int) -> None:
    rows = evenly(number, most)
    assert len(rows) == min(number, most)
    assert len(set(rows.tolist())) == len(rows)
    assert len(rows) < 2 or np.ptp(np.diff(rows)) <= 1
    assert not len(rows) or (rows[0] == 0 and rows[-1] < number)


def test_calibration_images_are_network_inputs(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    Image.new("RGB", (50, 30), (200, 0, 10)).save(paths[0])
    Image.new("L", (30, 80), 7).save(paths[1])
    preprocess = Preprocess(32, 64, 32, (1, 2, 3))
    first, second = calibration_images(paths, preprocess)
    assert (first.shape, first.dtype) == ((1, 3, 32, 64), np.float32)
    assert first[0, :, 0, 0].tolist() == [200, 0, 10]
    assert first[0, :, -1, -1].tolist() == [1, 2, 3]
    assert second.shape == (1, 3, 64, 32)
    (fixed,) = calibration_images(paths[:1], replace(preprocess, canvas=(64, 64)))
    assert fixed.shape == (1, 3, 64, 64)


def test_an_unreadable_calibration_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken\.png"):
        list(calibration_images([tmp_path / "broken.png"], Preprocess(32, 64, 32, (1, 2, 3))))


def test_a_model_against_itself_loses_nothing(plain: Any, meta: Any, source: Any) -> None:
    backend = TorchBackend(plain.model, meta)
    preprocess = Preprocess(meta.imgsz, meta.max_size, meta.stride, meta.pad_value, canvas=(96, 96))
    judge = Judge(source.open("val"), "val", "lvis", 3)
    compared = judge.compare({"fp32": backend, "fp16": backend}, preprocess, masks=False, progress=SilentProgress())
    assert compared["delta"] == {"box": 0.0, "mask": None}
    assert ap_text("fp16", compared).endswith(f"(+0.00), on 3 of {len(source.open('val'))} images of val")


def compared(name: str, box: float | None, mask: float | None) -> dict[str, Any]:
    """A comparison in which the file loses so much of an AP of 0.4."""
    kept = {kind: None if lost is None else 0.4 - lost for kind, lost in (("box", box), ("mask", mask))}
    delta = {kind: None if lost is None else -lost for kind, lost in (("box", box), ("mask", mask))}
    images = {"split": "val", "images": 5, "images_of_split": 5}
    return {**images, "fp32": {"box": 0.4, "mask": 0.4}, name: kept, "delta": delta}


@pytest.mark.parametrize(("box", "mask"), [(0.011, 0.0), (0.0, 0.011), (0.2, None)])
@pytest.mark.parametrize(("name", "remedy"), [("fp16", "without half=true"), ("int8", "calibration_images=")])
def test_more_than_a_point_lost_is_shouted_of(name: str, remedy: str, box: float, mask: float | None) -> None:
    assert re.search(f"MORE THAN A POINT OF AP IS LOST: .*{remedy}", ap_text(name, compared(name, box, mask)))


@pytest.mark.parametrize(("box", "mask"), [(0.009, 0.009), (-0.2, -0.2), (0.0, None), (None, None)])
def test_less_is_not(box: float | None, mask: float | None) -> None:
    assert "LOST" not in ap_text("int8", compared("int8", box, mask))


def test_other_data_than_the_models_is_refused(plain: Any, source: Any) -> None:
    backend = TorchBackend(plain.model, replace(plain.meta, category_ids=tuple(range(90, 97))))
    with pytest.raises(DataError, match="not the same"):
        Judge(source.open("val"), "val", "lvis", 5).compare(
            {"a": backend, "b": backend},
            Preprocess(64, 96, 32, (0, 0, 0)),
            masks=True,
            progress=SilentProgress(),
        )


def perfect(truth: GroundTruth) -> DetectionTable:
    """Every object found, and half of them once more elsewhere."""
    boxes = truth.ann_boxes_xywh
    wrong = boxes[::2] + np.array([20, 0, 0, 0])
    return DetectionTable(
        np.concatenate([truth.ann_image, truth.ann_image[::2]]).astype(np.int32),
        np.concatenate([truth.ann_labels, truth.ann_labels[::2]]).astype(np.int32),
        np.concatenate([np.full(len(boxes), 0.5), np.full(len(wrong), 0.9)]),
        np.concatenate([boxes, wrong]),
    )


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
def test_the_ground_truth_of_all_images_scores_as_the_split(source: Any, protocol: str) -> None:
    store = source.open("val")
    bands = np.zeros(7, dtype=np.int64)
    keys: dict[str, Any] = {"protocol": protocol, "iou_type": "bbox", "class_band": bands, "band_names": ("all",)}
    whole = GroundTruth.from_store(store)
    table = perfect(whole)
    same = ground_truth_of(store, np.arange(len(store)))
    expected = evaluate(store, table, **keys).summary
    assert 0 < expected["AP"] < 1  # type: ignore[operator]
    assert evaluate(same, table, **keys).summary == expected


def test_the_ground_truth_of_some_images_holds_theirs_and_no_others(source: Any) -> None:
    store = source.open("val")
    rows = evenly(len(store), 4)
    whole, some = GroundTruth.from_store(store), ground_truth_of(store, rows)
    kept = np.isin(whole.ann_image, rows)
    np.testing.assert_array_equal(some.image_ids, whole.image_ids[rows])
    np.testing.assert_array_equal(some.ann_ids, whole.ann_ids[kept])
    np.testing.assert_array_equal(rows[some.ann_image], whole.ann_image[kept])
    masks = [whole.counts(row) for row in np.flatnonzero(kept)]
    assert [some.counts(row) for row in range(len(some.ann_ids))] == masks
    assert {key // 7 for key in some.negative.tolist()} <= set(range(4))
    assert len(some.negative) == sum(len(store.neg_labels(int(row))) for row in rows) * bool(store.federated)


def test_a_file_has_one_precision(source: Any) -> None:
    with pytest.raises(ConfigError, match="one precision"):
        choose_precision(load_config({"half": True, "int8": True}), lambda: source)


def no_data() -> Any:
    raise ConfigError("data: not given")


def test_full_precision_needs_no_data() -> None:
    assert choose_precision(load_config({}), no_data) == Precision()


def test_half_is_made_without_data_but_says_so() -> None:
    precision = choose_precision(load_config({"half": True}), no_data)
    assert (precision.name, precision.judge, precision.unjudged) == ("fp16", None, "data: not given")


def test_int8_needs_images(source: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data: not given.*calibration_images="):
        choose_precision(load_config({"int8": True}), no_data)
    with pytest.raises(DataError, match=r"calibration_images=.*nowhere"):
        choose_precision(load_config({"int8": True, "calibration_images": str(tmp_path / "nowhere")}), lambda: source)
    for number in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    keys = {"int8": True, "calibration_images": str(tmp_path), "calibration_count": 2}
    precision = choose_precision(load_config(keys), no_data)
    assert [path.name for path in precision.calibration] == ["0.png", "2.png"]
    precision = choose_precision(load_config({"int8": True, "calibration_count": 4}), lambda: source)
    assert len(precision.calibration) == 4
    assert all(path.is_file() for path in precision.calibration)


def test_the_comparison_may_be_left_out(source: Any) -> None:
    precision = choose_precision(load_config({"int8": True, "ap_images": 0}), lambda: source)
    assert (precision.judge, precision.unjudged) == (None, "ap_images=0")
    assert len(precision.calibration) > 0


@pytest.fixture
def judged(plain: Any, meta: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The result of an export to fp16 whose AP is compared by the function given; the file is a copy."""

    def copied(model: Any, meta: Any, path: Path, **options: Any) -> Any:
        path.write_bytes(plain.path.read_bytes())
        return SimpleNamespace(opset=18, canvas=None)

    def export(compare: Any) -> dict[str, Any]:
        judge: Any = SimpleNamespace(compare=compare)
        return export_and_prove(
            plain.model,
            meta,
            tmp_path / "model.onnx",
            config={},
            opset=None,
            dynamic=True,
            parity=False,
            progress=SilentProgress(),
            precision=Precision("fp16", (), judge),
        )

    monkeypatch.setattr("aegl.export.pipeline.export_onnx", copied)
    return export


def test_a_loss_of_more_than_a_point_is_warned_of(judged: Any, caplog: pytest.LogCaptureFixture) -> None:
    judged(lambda *_, **__: compared("fp16", 0.009, 0.0))
    assert not caplog.records
    result = judged(lambda *_, **__: compared("fp16", 0.02, 0.0))
    assert result["precision"]["text"] in caplog.text
    assert "box AP 38.00 (-2.00)" in caplog.text


def test_images_that_are_missing_do_not_lose_the_file(judged: Any, caplog: pytest.LogCaptureFixture) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise DataError("image 7.jpg does not exist")

    result = judged(missing)
    assert result["precision"]["ap"] is None
    assert result["precision"]["text"] == "fp16: its AP was not compared with fp32 (image 7.jpg does not exist)"
    assert "7.jpg" in caplog.text
