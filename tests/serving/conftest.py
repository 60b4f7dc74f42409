"""A file of one millisecond that answers as a detector does, so that the server is what is tested."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from starlette.testclient import TestClient

from aegl.metadata import ModelMeta
from aegl.runtime import Runtime
from aegl.serving.app import make_app
from aegl.serving.model import Model
from aegl.serving.service import Service
from aegl.serving.settings import Settings

NAMES = ("red </script> thing", "green", "blue")


def meta() -> ModelMeta:
    return ModelMeta(
        names=NAMES,
        category_ids=(11, 12, 13),
        band_names=("r", "c", "f"),
        class_band=(0, 1, 2),
        model="toy",
        method="none",
        data="none",
        protocol="coco",
        imgsz=64,
        max_size=96,
        stride=32,
        pixel_mean=(123.0, 116.0, 103.0),
        pixel_std=(58.0, 57.0, 57.0),
        conf=0.01,
        iou=0.5,
        max_det=3,
        mask_size=7,
    )


def write_toy(path: Path, *, canvas: tuple[int, int] | None = None, channels_last: bool = False) -> Path:
    """Scores are the means of the channels, padding included, and move boxes and masks: an answer shows its input."""
    rng = np.random.default_rng(0)
    constants = {
        "axes": np.array([2, 3]),
        "k": np.array([3]),
        "last": np.array([-1]),
        "two": np.array([2, 3]),
        "byte": np.array(255, dtype=np.float32),
        "half": np.array(0.5, dtype=np.float32),
        "least": np.array(0.01, dtype=np.float32),
        "base": np.array([[[2, 3, 30, 40], [10, 10, 50, 30], [0, 20, 20, 60]]], dtype=np.float32),
        "pattern": rng.uniform(0.0, 0.6, (1, 3, 7, 7)).astype(np.float32),
    }
    image = ["batch", "height", "width", 3] if channels_last else ["batch", 3, "height", "width"]
    if canvas:
        image = ["batch", 3, *canvas]
    steps = [
        ("Cast", ["images"], ["floats"], {"to": TensorProto.FLOAT}),
        ("Transpose", ["floats"], ["planes"], {"perm": [0, 3, 1, 2] if channels_last else [0, 1, 2, 3]}),
        ("ReduceMean", ["planes", "axes"], ["means"], {"keepdims": 0}),
        ("Div", ["means", "byte"], ["shares"], {}),
        ("TopK", ["shares", "k"], ["scores", "labels"], {}),
        ("Add", ["scores", "half"], ["factors"], {}),
        ("Unsqueeze", ["factors", "last"], ["columns"], {}),
        ("Mul", ["base", "columns"], ["boxes"], {}),
        ("Unsqueeze", ["scores", "two"], ["planar"], {}),
        ("Add", ["pattern", "planar"], ["masks"], {}),
        ("Greater", ["scores", "least"], ["seen"], {}),
        ("Cast", ["seen"], ["ones"], {"to": TensorProto.INT64}),
        ("ReduceSum", ["ones", "last"], ["num_detections"], {"keepdims": 0}),
        ("ReduceMin", ["ones", "last"], ["least_one"], {"keepdims": 0}),
        ("Cast", ["least_one"], ["complete"], {"to": TensorProto.BOOL}),
    ]
    outputs = [
        ("boxes", TensorProto.FLOAT, ["batch", 3, 4]),
        ("scores", TensorProto.FLOAT, ["batch", 3]),
        ("labels", TensorProto.INT64, ["batch", 3]),
        ("masks", TensorProto.FLOAT, ["batch", 3, 7, 7]),
        ("num_detections", TensorProto.INT64, ["batch"]),
        ("complete", TensorProto.BOOL, ["batch"]),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, given, made, **keys) for kind, given, made, keys in steps],
        "toy",
        [helper.make_tensor_value_info("images", TensorProto.UINT8 if channels_last else TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content = {"meta": meta().to_dict(), "config": {}, "canvas": canvas}
    helper.set_model_props(model, {"aegl": json.dumps(content)})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


def picture(seed: int = 0, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """``[h, w, 3]`` uint8, of a colour of its own."""
    rng = np.random.default_rng(seed)
    return (rng.integers(60, 256, 3) * rng.uniform(0.5, 1.0, (*size, 3))).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **keys: Any) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **keys)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.onnx")


@pytest.fixture
def runtime(toy_file: Path) -> Runtime:
    return Runtime(toy_file, device="cpu", threads=1)


def client_of(runtime: Runtime, **keys: Any) -> TestClient:
    settings = Settings(**keys)
    service = Service(Model(runtime, settings.max_pixels), settings)
    client = TestClient(make_app(service), raise_server_exceptions=False)
    client.service = service  # type: ignore[attr-defined]
    return client


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    """Speaks to the application in this process."""
    with client_of(runtime, max_pixels=10_000, max_body_mb=0.2, max_batch=4) as client:
        yield client


@pytest.fixture(scope="session", name="picture")
def _picture() -> Callable[..., np.ndarray]:
    return picture


@pytest.fixture(scope="session", name="encoded")
def _encoded() -> Callable[..., bytes]:
    return encoded


@pytest.fixture(scope="session", name="client_of")
def _client_of() -> Callable[..., TestClient]:
    return client_of


@pytest.fixture(scope="session", name="write_toy")
def _write_toy() -> Callable[..., Path]:
    return write_toy


WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "pycocotools", "lvis", "onnx", "onnxscript"}:
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Blocker())
from aegl_cli.main import main
main()
"""
CLI = [sys.executable, "-c", WITHOUT_TORCH]


class Process:
    def __init__(self, file: Path, *keys: str) -> None:
        command = [*CLI, "serve", f"weights={file}", "device=cpu", "threads=1", *keys]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"http://[\w.:\[\]]+", line):
                self.url = found[0]
                break
        else:
            raise AssertionError("".join(self.said))
        threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()), daemon=True).start()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@contextlib.contextmanager
def serving(file: Path, *keys: str) -> Iterator[Process]:
    server = Process(file, "port=0", *keys)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session", name="serving")
def _serving() -> Callable[..., contextlib.AbstractContextManager[Process]]:
    return serving


@pytest.fixture(scope="session")
def cli() -> list[str]:
    """`aegl`, where importing torch is an error."""
    return CLI
