"""Pictures in, detections out: the answers are those of the runtime, and wrong input has one reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from aegl.runtime import Runtime


def test_the_answer_is_that_of_the_runtime(client: TestClient, runtime: Runtime, picture: Any, encoded: Any) -> None:
    answer = client.post("/predict", params={"conf": 0.1}, content=encoded(picture()))
    assert answer.status_code == 200
    assert answer.json() == {"model": "toy", **runtime.predict([picture()], conf=0.1)[0].to_dict()}
    first = answer.json()["detections"][0]
    assert first.keys() == {"label", "category_id", "name", "band", "score", "box", "mask"}


@pytest.mark.parametrize("field", ["image", "file", "anything"])
def test_a_form_gives_the_same_as_the_bare_file(client: TestClient, picture: Any, encoded: Any, field: str) -> None:
    data = encoded(picture(), "JPEG")
    bare = client.post("/predict", content=data).json()
    assert bare["detections"]
    assert client.post("/predict", files={field: ("a.jpg", data)}, data={"note": "x"}).json() == bare


def test_the_threshold_and_the_masks_are_the_clients_choice(client: TestClient, picture: Any, encoded: Any) -> None:
    data = encoded(picture())
    everything = client.post("/predict?conf=0", content=data).json()["detections"]
    middle = sorted(each["score"] for each in everything)[1]
    assert len(client.post(f"/predict?conf={middle}", content=data).json()["detections"]) == len(everything) - 1
    bare = client.post("/predict?conf=0&masks=false", content=data).json()["detections"]
    assert bare == [{key: value for key, value in each.items() if key != "mask"} for each in everything]


def test_a_picture_is_turned_as_its_orientation_says(client: TestClient, picture: Any, encoded: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    answer = client.post("/predict", content=encoded(picture(size=(40, 64)), "JPEG", exif=exif)).json()
    assert (answer["height"], answer["width"]) == (64, 40)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_pictures_of_every_mode_are_taken(client: TestClient, picture: Any, encoded: Any, mode: str, kind: str) -> None:
    if (mode, kind) == ("CMYK", "PNG"):
        kind = "JPEG"
    image = Image.fromarray(picture()).convert(mode)
    assert client.post("/predict", content=encoded(image, kind)).status_code == 200


def test_a_picture_of_one_pixel_is_taken(client: TestClient, encoded: Any) -> None:
    answer = client.post("/predict", content=encoded(np.full((1, 1, 3), 200, dtype=np.uint8)))
    assert answer.status_code == 200


def _bomb(encoded: Any) -> bytes:
    """A small file of a hundred million pixels."""
    return encoded(Image.new("1", (10_000, 10_000)), "PNG")


WRONG: dict[str, tuple[int, str]] = {
    "empty": (400, "empty"),
    "text": (415, "no image"),
    "html": (415, "no image"),
    "truncated jpeg": (400, "cannot be read"),
    "truncated png": (400, "cannot be read"),
    "broken png": (400, "cannot be read"),
    "header only": (415, "no image"),
    "too many pixels": (413, "101x100 pixels; at most 10000"),
    "bomb": (413, "at most 10000"),
    "long body": (413, "longer than 0.2 MiB"),
    "floating point": (400, "floating-point"),
    "postscript": (415, "no image"),
}


def _wrong(name: str, picture: Any, encoded: Any) -> bytes:
    png, jpeg = encoded(picture()), encoded(picture(), "JPEG")
    broken = bytearray(png)
    broken[60:90] = bytes(30)
    return {
        "empty": b"",
        "text": b"hello",
        "html": b"<html></html>" * 100,
        "truncated jpeg": jpeg[: len(jpeg) // 2],
        "truncated png": png[: len(png) // 2],
        "broken png": bytes(broken),
        "header only": b"\x89PNG\r\n\x1a\n",
        "too many pixels": encoded(np.zeros((100, 101, 3), dtype=np.uint8)),
        "bomb": _bomb(encoded) if name == "bomb" else b"",
        "long body": b"x" * 300_000,
        "floating point": encoded(Image.fromarray(np.zeros((8, 8), dtype=np.float32)), "TIFF"),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    }[name]


@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in WRONG for form in (False, True) if not (form and name == "empty")]
)
def test_a_wrong_file_is_refused_with_one_reason_and_the_server_lives(
    client: TestClient, picture: Any, encoded: Any, name: str, form: bool
) -> None:
    data, (status, reason) = _wrong(name, picture, encoded), WRONG[name]
    keys: dict[str, Any] = {"files": {"image": ("a", data)}} if form else {"content": data}
    answer = client.post("/predict", **keys)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert reason in answer.json()["error"]
    assert client.post("/predict", content=encoded(picture())).status_code == 200


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("conf=2", "conf=2: must be a number from 0 to 1"),
        ("conf=-0.1", "from 0 to 1"),
        ("conf=nan", "from 0 to 1"),
        ("conf=", "from 0 to 1"),
        ("masks=perhaps", "true or false"),
        ("threshold=0.5", "threshold: unknown key; keys are conf, masks"),
    ],
)
def test_a_wrong_option_is_refused(client: TestClient, picture: Any, encoded: Any, query: str, reason: str) -> None:
    answer = client.post(f"/predict?{query}", content=encoded(picture()))
    assert answer.status_code == 400
    assert reason in answer.json()["error"]


FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", PART + b"a\r\n--x--\r\n"),
        (FORM, b"no form at all"),
        (FORM, PART + b"never ended"),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nno file\r\n--x--\r\n'),
        (FORM, b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--\r\n"),
        (FORM, b"--x\r\n\r\nno headers\r\n--x--\r\n"),
        (FORM, PART + b"one\r\n" + PART + b"two\r\n--x--\r\n"),
        ("multipart/form-data; boundary=" + "y" * 500, b"--y"),
    ],
)
def test_a_broken_form_is_refused(client: TestClient, kind: str, body: bytes) -> None:
    answer = client.post("/predict", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert "form" in answer.json()["error"]


def test_a_compressed_body_is_refused(client: TestClient) -> None:
    answer = client.post("/predict", content=b"x", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert "gzip" in answer.json()["error"]


def test_a_body_that_does_not_say_its_length_has_the_same_limit(client: TestClient) -> None:
    answer = client.post("/predict", content=(b"x" * 1000 for _ in range(400)))
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/predict", 405), ("DELETE", "/", 405), ("GET", "/../etc/passwd", 404), ("GET", "/v3", 404)],
)
def test_what_is_not_there_is_said_in_json(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(f"{method} /")


def test_a_file_that_takes_stored_pixels_is_served_alike(
    tmp_path: Any, write_toy: Any, client_of: Any, picture: Any, encoded: Any, client: TestClient
) -> None:
    other = Runtime(write_toy(tmp_path / "toy.onnx", channels_last=True), device="cpu", threads=1)
    data = encoded(picture())
    with client_of(other) as stored:
        found = stored.post("/predict", content=data).json()
    assert json.dumps(found) == json.dumps(client.post("/predict", content=data).json())


def test_a_file_of_fixed_size_takes_pictures_of_any(
    tmp_path: Any, write_toy: Any, client_of: Any, picture: Any, encoded: Any
) -> None:
    fixed = Runtime(write_toy(tmp_path / "fixed.onnx", canvas=(64, 96)), device="cpu", threads=1)
    with client_of(fixed) as client:
        for size in ((90, 30), (30, 90), (64, 64)):
            answer = client.post("/predict", content=encoded(picture(1, size))).json()
            assert answer == {"model": "fixed", **fixed.predict([picture(1, size)])[0].to_dict()}
