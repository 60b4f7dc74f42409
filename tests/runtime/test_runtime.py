"""Prediction without PyTorch gives what aegl's own predictor gives, and refuses what is no image in one sentence."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from aegl.engine.predictor import predict
from aegl.errors import AeglError, DataError, ExportError
from aegl.runtime import Detected, Runtime
from aegl.runtime.graph import OUTPUTS


@pytest.fixture(scope="module")
def runtime(case: Any) -> Runtime:
    return Runtime(case.path, device="cpu", threads=1)


@pytest.fixture(scope="module")
def free(plain: Any) -> Runtime:
    return Runtime(str(plain.path), device="cpu")


def assert_same(found: Detected, expected: Detected) -> None:
    assert found.to_dict() == expected.to_dict()
    assert found.size == expected.size


def test_all_kinds_of_images_in_one_call_give_what_the_predictor_gives(
    case: Any, runtime: Runtime, pictures: dict[str, Path]
) -> None:
    number = 0
    for path, found in zip(pictures.values(), runtime.predict(list(pictures.values()), conf=0.35), strict=True):
        (expected,) = predict(case.onnx, [path], conf=0.35)
        number += len(found)
        assert found.size == expected.orig_size
        assert found.labels.tolist() == expected.labels.tolist()
        assert found.masks == expected.masks
        np.testing.assert_allclose(found.boxes, expected.boxes_orig, atol=1e-3)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        assert (found.names, found.bands) == (expected.names, expected.bands)
    assert number > 2 * len(pictures)


def test_one_image_gives_the_predictors_json_to_the_last_digit(
    case: Any, runtime: Runtime, pictures: dict[str, Path]
) -> None:
    for path in pictures.values():
        (found,), (expected,) = runtime.predict([path], conf=0.3), predict(case.onnx, [path], conf=0.3)
        assert {"path": str(path), **found.to_dict()} == expected.to_dict()


def test_pytorch_finds_the_same(plain: Any, free: Runtime, pictures: dict[str, Path]) -> None:
    """The one comparison of this file whose other side shares neither graph nor session."""
    for path in pictures.values():
        (found,), (expected,) = free.predict([path]), predict(plain.pytorch, [path], conf=0.3)
        assert sorted(found.names) == sorted(expected.names)
        for box, score, row in zip(found.boxes, found.scores, range(len(found)), strict=True):
            other = int(np.abs(expected.boxes_orig - box).sum(axis=1).argmin())
            assert expected.boxes_orig[other] == pytest.approx(box, abs=0.1 * max(found.size) / 64)
            assert expected.scores[other] == pytest.approx(score, abs=1e-3)
            assert (found.mask(row) != expected.mask(other)).mean() < 0.01


def test_threads_do_not_get_into_each_others_way(runtime: Runtime, pictures: dict[str, Path]) -> None:
    paths = list(pictures.values()) * 3
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda path: runtime.predict([path])[0], paths))
    for path, found in zip(paths, answers, strict=True):
        assert_same(found, runtime.predict([path])[0])


def test_what_comes_back_has_its_types_and_lies_in_the_image(free: Runtime, pictures: dict[str, Path]) -> None:
    (found,) = free.predict([pictures["turned.jpg"]])
    assert found.size == (90, 60)
    count = len(found)
    assert count > 0
    assert (found.boxes.dtype, found.boxes.shape) == (np.float32, (count, 4))
    assert (found.scores.dtype, found.labels.dtype) == (np.float32, np.int64)
    assert (found.scores >= 0.3).all() and (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all() and (found.boxes <= [60, 90, 60, 90]).all()
    assert [mask["size"] for mask in found.masks] == [[90, 60]] * count
    assert found.mask(0).shape == (90, 60) and found.mask(0).dtype == bool


def test_arrays_and_open_images_are_as_good_as_paths(free: Runtime, pictures: dict[str, Path]) -> None:
    for path in pictures.values():
        image = Image.open(path)
        assert_same(free.predict([image])[0], free.predict([path])[0])
    array = np.asarray(Image.open(pictures["landscape.png"]))
    assert_same(free.predict([array])[0], free.predict([pictures["landscape.png"]])[0])


def test_answers_come_in_the_order_of_the_images_whatever_their_canvas(
    runtime: Runtime, pictures: dict[str, Path]
) -> None:
    names = ["portrait.png", "landscape.png", "tiny.png", "portrait.png", "alpha.png"]
    for name, found in zip(names, runtime.predict([pictures[name] for name in names]), strict=True):
        (alone,) = runtime.predict([pictures[name]])
        assert found.size == alone.size
        assert found.labels.tolist() == alone.labels.tolist()
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-3)


def test_a_portrait_image_is_made_to_fit_a_landscape_file(windowed: Any, pictures: dict[str, Path]) -> None:
    runtime = Runtime(windowed.path, device="cpu")
    assert runtime.canvas == (64, 96)
    assert runtime.preprocess.target_size(120, 70) == (64, 37)
    (found,) = runtime.predict([pictures["portrait.png"]])
    assert len(found) > 0
    assert found.boxes[:, 3].max() > 64  # in pixels of the image, whose height is 120


def test_nothing_found_is_an_empty_answer(plain: Any, free: Runtime) -> None:
    blank = np.full((40, 50, 3), plain.meta.pad_value, dtype=np.uint8)
    (found,) = free.predict([blank])
    assert (len(found), found.boxes.shape, found.scores.shape, found.masks) == (0, (0, 4), (0,), [])
    assert (found.names, found.bands) == ([], [])
    assert found.to_dict() == {"height": 40, "width": 50, "detections": []}
    assert free.predict([]) == []


def test_a_file_knows_itself(plain: Any, free: Runtime) -> None:
    assert (free.meta, free.canvas, free.provider) == (plain.meta, None, "CPUExecutionProvider")
    assert (free.path, free.config["imgsz"]) == (plain.path, 64)


def test_the_raw_graph_pads_to_its_stride(plain: Any, free: Runtime, exported: Any) -> None:
    images = np.stack([exported.scene(seed, (50, 70)) for seed in range(3)])
    padded = np.empty((3, 3, 64, 96), dtype=np.uint8)
    padded[:] = np.array(plain.meta.pad_value)[:, None, None]
    padded[:, :, :50, :70] = images
    found, expected = free.run(images), free.run(padded.astype(np.float64))
    assert tuple(found) == OUTPUTS
    for name in OUTPUTS:
        assert np.array_equal(found[name], expected[name])
    assert found["num_detections"].min() > 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 64, 64), dtype=np.uint8), r"shape \[batch, 3, height, width\], got \[3, 64, 64\]"),
        (np.zeros((1, 64, 64, 3), dtype=np.uint8), r"got \[1, 64, 64, 3\]"),
        (np.zeros((0, 3, 64, 64), dtype=np.uint8), r"got \[0, 3, 64, 64\]"),
        (np.zeros((1, 3, 0, 64), dtype=np.uint8), r"got \[1, 3, 0, 64\]"),
        (np.zeros((1, 3, 64, 64), dtype=np.int64), r"uint8 or floating point in 0\.\.255, got int64"),
        (np.zeros((1, 3, 64, 64), dtype=object), "got object"),
    ],
)
def test_arrays_that_are_no_images_are_refused(free: Runtime, images: np.ndarray, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        free.run(images)


def broken() -> Image.Image:
    """Opened by Pillow, which reads the pixels later, and truncated."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue()[:1500]))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((9, 9), dtype=np.uint8), r"image number 1 must be \[height, width, 3\] uint8 RGB, is \[9, 9\] uint8"),
        (np.zeros((9, 9, 4), dtype=np.uint8), r"is \[9, 9, 4\] uint8"),
        (np.zeros((9, 9, 3), dtype=np.float32), r"is \[9, 9, 3\] float32"),
        (np.zeros((0, 9, 3), dtype=np.uint8), r"is \[0, 9, 3\]"),
        (b"bytes", "image number 1 is a bytes; give a Pillow image, an array or a path"),
        (None, "is a NoneType"),
        ("none.jpg", r"image none\.jpg does not exist"),
        (broken(), "image number 1 cannot be read: .*truncated"),
        (Image.new("F", (4, 4)), "image number 1 cannot be read: pixels are floating-point"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_named(free: Runtime, image: Any, message: str) -> None:
    good = np.zeros((9, 9, 3), dtype=np.uint8)
    with pytest.raises(DataError, match=message) as caught:
        free.predict([good, image])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("one", ["a.jpg", Path("a.jpg"), Image.new("RGB", (4, 4))], ids=lambda v: type(v).__name__)
def test_one_image_instead_of_a_list_is_refused(free: Runtime, one: Any) -> None:
    with pytest.raises(DataError, match="takes a list of images, got one"):
        free.predict(one)


@pytest.mark.parametrize("conf", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(free: Runtime, conf: float) -> None:
    with pytest.raises(ExportError, match=r"conf=.*must lie in \[0, 1\]"):
        free.predict([], conf=conf)


def test_a_number_of_threads_below_zero_is_refused(plain: Any) -> None:
    with pytest.raises(ExportError, match="threads=-1: must be 0"):
        Runtime(plain.path, device="cpu", threads=-1)


def changed(path: Path, target: Path, **outputs: str | None) -> Path:
    """A copy with outputs renamed, or dropped where the new name is None."""
    model = onnx.load(path)
    for name, new in outputs.items():
        (place,) = (i for i, value in enumerate(model.graph.output) if value.name == name)
        if new is not None:
            model.graph.node.append(onnx.helper.make_node("Identity", [name], [new]))
            model.graph.output[place].name = new
        else:
            del model.graph.output[place]
    onnx.save(model, target)
    return target


def test_a_file_without_masks_gives_boxes(plain: Any, free: Runtime, pictures: dict[str, Path], tmp_path: Path) -> None:
    bare = Runtime(changed(plain.path, tmp_path / "bare.onnx", masks=None), device="cpu")
    (found,), (expected,) = (each.predict([pictures["larger.png"]]) for each in (bare, free))
    assert len(found) == len(expected) > 0
    assert np.array_equal(found.boxes, expected.boxes)
    assert found.masks == []
    assert all("mask" not in row for row in found.to_dict()["detections"])


@pytest.fixture(scope="module")
def red_masks(plain: Any, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """The same model with masks over the input: for every detection, where the image is red."""
    model = onnx.load(plain.path)
    for node in model.graph.node:
        node.output[:] = ["over boxes" if name == "masks" else name for name in node.output]
    (place,) = (i for i, value in enumerate(model.graph.output) if value.name == "masks")
    shape = ["batch", 20, "height", "width"]
    model.graph.output[place].CopyFrom(onnx.helper.make_tensor_value_info("masks", onnx.TensorProto.BOOL, shape))
    values = {"first": np.array([0]), "level": np.array(128, dtype=np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    steps = [("Gather", ["images", "first"], "red", 1), ("Greater", ["red", "level"], "is red", None)]
    for kind, given, made, axis in [*steps, ("Concat", ["is red"] * 20, "masks", 1)]:
        keys = {} if axis is None else {"axis": axis}
        model.graph.node.append(onnx.helper.make_node(kind, given, [made], **keys))
    path = tmp_path_factory.mktemp("red") / "red.onnx"
    onnx.save(model, path)
    return Runtime(path, device="cpu")


def test_masks_over_the_input_are_those_of_the_image_without_the_padding(red_masks: Runtime, exported: Any) -> None:
    image = exported.scene(3, (64, 70))  # of the size that the network sees, but for the padding
    red = image[0] > 128
    assert red_masks.preprocess.target_size(64, 70) == (64, 70)
    assert red_masks.run(image[None])["masks"].shape == (1, 20, 64, 70)
    (found,) = red_masks.predict([image.transpose(1, 2, 0)])
    assert len(found) > 0
    for row in range(len(found)):
        assert np.array_equal(found.mask(row), red)


def test_a_graph_with_other_outputs_is_refused(plain: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"it has the outputs .*'points'.*; export the model anew"):
        Runtime(changed(plain.path, tmp_path / "other.onnx", scores="points"), device="cpu")


@pytest.fixture(scope="module")
def stored_bytes(plain: Any, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """The same model with uint8 ``[B, H, W, 3]`` input."""
    model = onnx.load(plain.path)
    for node in model.graph.node:
        node.input[:] = ["planes" if name == "images" else name for name in node.input]
    del model.graph.input[:]
    shape = ["batch", "height", "width", 3]
    model.graph.input.append(onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, shape))
    cast = onnx.helper.make_node("Cast", ["images"], ["floats"], to=onnx.TensorProto.FLOAT)
    turn = onnx.helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2])
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([cast, turn, *nodes])
    path = tmp_path_factory.mktemp("bytes") / "bytes.onnx"
    onnx.save(model, path)
    return Runtime(path, device="cpu")


def test_a_file_that_takes_stored_images_gives_the_same(
    stored_bytes: Runtime, free: Runtime, pictures: dict[str, Path]
) -> None:
    paths = list(pictures.values())
    for found, expected in zip(stored_bytes.predict(paths), free.predict(paths), strict=True):
        assert_same(found, expected)
    with pytest.raises(ExportError, match=r"takes images of uint8 in 0\.\.255, got float32"):
        stored_bytes.run(np.zeros((1, 3, 64, 64), dtype=np.float32))


def test_every_refusal_is_an_error_of_aegl(tmp_path: Path) -> None:
    with pytest.raises(AeglError, match="no such ONNX file"):
        Runtime(tmp_path / "none.onnx")
