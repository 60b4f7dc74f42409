"""KServe's protocol, version 2: tensors as JSON and as binary data, and every way to get them wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from aegl.runtime import Runtime
from aegl.serving import kserve
from aegl.serving.refusal import Refusal

INFER = "/v2/models/toy/infer"
HEADER = "Inference-Header-Content-Length"


def _images(number: int = 2) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (number, 3, 32, 64)).astype(np.float32)


def _json(images: np.ndarray, **changes: Any) -> dict[str, Any]:
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "FP32", "data": images.ravel().tolist()}
    return {"inputs": [{**tensor, **changes}]}


def _array(tensor: dict[str, Any]) -> np.ndarray:
    kinds = {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_}
    return np.array(tensor["data"], dtype=kinds[tensor["datatype"]]).reshape(tensor["shape"])


def _binary(content: dict[str, Any], *blobs: bytes) -> dict[str, Any]:
    head = json.dumps(content).encode()
    return {"content": b"".join([head, *blobs]), "headers": {HEADER: str(len(head))}}


def _announced(images: np.ndarray, **changes: Any) -> dict[str, Any]:
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "FP32"}
    return {"inputs": [{**tensor, "parameters": {"binary_data_size": images.nbytes}, **changes}]}


def test_the_metadata_is_that_of_the_graph(client: TestClient) -> None:
    metadata = client.get("/v2/models/toy").json()
    assert metadata["name"] == "toy" and metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, -1, -1]}]
    assert metadata["outputs"] == [
        {"name": "boxes", "datatype": "FP32", "shape": [-1, 3, 4]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "labels", "datatype": "INT64", "shape": [-1, 3]},
        {"name": "masks", "datatype": "FP32", "shape": [-1, 3, 7, 7]},
        {"name": "num_detections", "datatype": "INT64", "shape": [-1]},
        {"name": "complete", "datatype": "BOOL", "shape": [-1]},
    ]
    assert client.get("/v2/models/toy/versions/1").json() == metadata
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2/models/toy/ready"])
def test_a_running_server_is_healthy(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("nested", [False, True])
def test_tensors_as_json(client: TestClient, runtime: Runtime, nested: bool) -> None:
    images = _images(3)
    changes = {"data": images.tolist()} if nested else {}
    answer = client.post(INFER, json={"id": "mine", **_json(images, **changes)}).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("toy", "1", "mine")
    expected = runtime.run(images)
    assert [tensor["name"] for tensor in answer["outputs"]] == list(expected)
    for tensor in answer["outputs"]:
        np.testing.assert_array_equal(_array(tensor), expected[tensor["name"]])


def test_tensors_as_binary_data(client: TestClient, runtime: Runtime) -> None:
    images = _images()
    wanted = [{"name": "masks", "parameters": {"binary_data": True}}, {"name": "scores"}]
    answer = client.post(INFER, **_binary({**_announced(images), "outputs": wanted}, images.tobytes()))
    length = int(answer.headers[HEADER])
    masks, scores = json.loads(answer.content[:length])["outputs"]
    expected = runtime.run(images)
    assert masks["parameters"]["binary_data_size"] == expected["masks"].nbytes == len(answer.content) - length
    assert answer.content[length:] == expected["masks"].tobytes()
    np.testing.assert_array_equal(_array(scores), expected["scores"])


def test_all_outputs_as_binary_data(client: TestClient, runtime: Runtime) -> None:
    images = _images(1)
    content = {**_json(images), "parameters": {"binary_data_output": True}}
    answer = client.post(INFER, json=content)
    place = int(answer.headers[HEADER])
    for tensor, expected in zip(
        json.loads(answer.content[:place])["outputs"], runtime.run(images).values(), strict=True
    ):
        size = tensor["parameters"]["binary_data_size"]
        assert answer.content[place : place + size] == expected.tobytes()
        place += size
    assert place == len(answer.content)


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/toy/versions/2", "/v2/models/other/ready"])
def test_another_model_is_not_there(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
    assert "not served here" in client.get(path).json()["error"]


def _change(**changes: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"json": _json(_images(1), **changes)}


def _raw(content: bytes, **headers: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"content": content, "headers": headers}


def _cut(images: np.ndarray) -> dict[str, Any]:
    return _binary(_announced(images), images.tobytes()[:-4])


BAD: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "no json": (_raw(b"hello"), "not valid JSON"),
    "no utf-8": (_raw(b"\xff\xfe{}"), "not valid JSON"),
    "deep": (_raw(b"[" * 90_000), "not valid JSON"),
    "nan": (_raw(b'{"inputs": [NaN]}'), "NaN"),
    "huge number": (_raw(b'{"inputs": ' + b"9" * 9000 + b"}"), "not valid JSON"),
    "list": (_raw(b"[]"), "must be a JSON object"),
    "no inputs": (_raw(b"{}"), "inputs: must be a list"),
    "inputs no objects": (_raw(b'{"inputs": [1]}'), "inputs: must be a list"),
    "missing": (_raw(b'{"inputs": []}'), "input images: missing"),
    "unknown": (_change(name="image"), "no such input; its inputs are images"),
    "nameless": (_change(name=None), "no such input"),
    "name no text": (_change(name=["images"]), "no such input"),
    "twice": (lambda: {"json": {"inputs": _json(_images(1))["inputs"] * 2}}, "given twice"),
    "dtype": (_change(datatype="FP64"), "must be FP32"),
    "dtype no text": (_change(datatype={}), "must be FP32"),
    "rank": (_change(shape=[3, 32, 64]), "must be [-1, 3, -1, -1]"),
    "channels": (_change(shape=[3, 1, 32, 64]), "must be [-1, 3, -1, -1]"),
    "shape no list": (_change(shape="1,3,32,64"), "whole numbers"),
    "shape empty": (_change(shape=[0, 3, 32, 64], data=[]), "above 0"),
    "shape negative": (_change(shape=[-1, 3, 32, 64]), "above 0"),
    "shape fraction": (_change(shape=[1, 3, 32.5, 64]), "whole numbers"),
    "shape truth": (_change(shape=[True, 3, 32, 64]), "whole numbers"),
    "shape huge": (_change(shape=[2**40, 3, 2**40, 2**40]), "its shape takes"),
    "data short": (_change(data=[1.0] * 10), "holds 10 values; its shape takes 6144"),
    "data ragged": (_change(data=[[1.0], [1.0, 2.0]]), "numbers in a flat list"),
    "data text": (_change(data=["a"] * 6144), "something else than numbers"),
    "data null": (_change(data=[None] * 6144), "something else than numbers"),
    "data no list": (_change(data=5), "must be a list"),
    "data too large": (_change(data=[1e300] * 6144), "not finite"),
    "data absent": (lambda: {"json": {"inputs": [_announced(_images(1), parameters={})["inputs"][0]]}}, "neither"),
    "parameters": (_change(parameters=[1]), "must be a JSON object"),
    "shared memory": (_change(parameters={"shared_memory_region": "a"}), "shared memory is not supported"),
    "id": (lambda: {"json": {"id": 5, **_json(_images(1))}}, "id: must be a string"),
    "unknown output": (lambda: {"json": {**_json(_images(1)), "outputs": [{"name": "x"}]}}, "no such output"),
    "outputs no list": (lambda: {"json": {**_json(_images(1)), "outputs": 7}}, "outputs: must be a list"),
    "classification": (
        lambda: {"json": {**_json(_images(1)), "outputs": [{"name": "scores", "parameters": {"classification": 2}}]}},
        "classification",
    ),
    "too many": (lambda: {"json": _json(np.zeros((5, 3, 32, 32)))}, "5 images; at most 4"),
    "too large": (lambda: {"json": _json(np.zeros((1, 3, 32, 128)))}, "sides of at most 96"),
    "header no number": (_raw(b"{}", **{HEADER: "many"}), "must be a number of bytes"),
    "header negative": (_raw(b"{}", **{HEADER: "-1"}), "must be a number of bytes"),
    "header too large": (_raw(b"{}", **{HEADER: "3"}), "at most the body's 2"),
    "header huge": (_raw(b"{}", **{HEADER: "9" * 5000}), "must be a number of bytes"),
    "binary cut": (lambda: _cut(_images(1)), "bytes of binary data announced"),
    "binary left": (lambda: _binary(_announced(_images(1)), _images(1).tobytes() + b"0123"), "4 bytes of binary data"),
    "binary size": (
        lambda: _binary(_announced(_images(1), parameters={"binary_data_size": 4}), b"0123"),
        "its shape and datatype take 24576",
    ),
    "binary size no number": (
        lambda: _binary(_announced(_images(1), parameters={"binary_data_size": "a"}), b"0123"),
        "binary_data_size a",
    ),
    "binary without header": (lambda: {"content": _binary(_announced(_images(1)), b"12")["content"]}, "not valid JSON"),
    "binary nan": (lambda: _binary(_announced(_images(1)), np.full(6144, np.nan, "<f4").tobytes()), "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_request_has_one_reason_and_the_server_lives(client: TestClient, name: str) -> None:
    make, reason = BAD[name]
    answer = client.post(INFER, **make())
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"error"}
    assert reason in answer.json()["error"]
    assert len(answer.json()["error"]) < 500
    assert client.post(INFER, json=_json(np.zeros((1, 3, 4, 4)))).status_code == 200


def test_a_file_of_fixed_size_says_so(tmp_path: Any, write_toy: Any, client_of: Any) -> None:
    fixed = Runtime(write_toy(tmp_path / "toy.onnx", canvas=(64, 96)), device="cpu", threads=1)
    with client_of(fixed) as client:
        assert client.get("/v2/models/toy").json()["inputs"][0]["shape"] == [-1, 3, 64, 96]
        answer = client.post(INFER, json=_json(_images(1)))
        assert answer.status_code == 400
        assert "must be [-1, 3, 64, 96]" in answer.json()["error"]
        assert client.post(INFER, json=_json(np.zeros((1, 3, 64, 96)))).status_code == 200


def test_a_file_that_takes_stored_pixels_takes_them_as_bytes(
    tmp_path: Any, write_toy: Any, client_of: Any, runtime: Runtime
) -> None:
    other = Runtime(write_toy(tmp_path / "toy.onnx", channels_last=True), device="cpu", threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3)).astype(np.uint8)
    with client_of(other) as client:
        assert client.get("/v2/models/toy").json()["inputs"][0]["datatype"] == "UINT8"
        content = _announced(pixels, datatype="UINT8")
        answer = client.post(INFER, **_binary(content, pixels.tobytes())).json()
        wrong = client.post(INFER, json=_json(pixels, datatype="UINT8", data=[256] * pixels.size))
    expected = runtime.run(pixels.transpose(0, 3, 1, 2))
    for tensor in answer["outputs"]:
        np.testing.assert_allclose(_array(tensor), expected[tensor["name"]], rtol=1e-6)
    assert wrong.status_code == 400 and "no UINT8" in wrong.json()["error"]


TENSORS = (kserve.Tensor("images", "FP32", (-1, 3, -1, -1)),)
OUTPUTS = (kserve.Tensor("scores", "FP32", (-1, 3)),)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    content=st.dictionaries(st.sampled_from(["inputs", "outputs", "id", "parameters"]), VALUES),
    extra=st.binary(max_size=8),
    length=st.none() | st.text(max_size=4) | st.integers(-2, 400).map(str),
)
def test_nothing_but_a_reason_comes_of_any_request(content: Any, extra: bytes, length: str | None) -> None:
    body = json.dumps(content).encode() + extra
    with pytest.raises(Refusal) as refused:
        kserve.parse(body, length, inputs=TENSORS, outputs=OUTPUTS)
    assert refused.value.status == 400
