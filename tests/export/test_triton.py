"""Model repositories for Triton: read by its own definition of a configuration, and compared with the graph."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from google.protobuf import text_format
from PIL import Image
from tritonclient.grpc import model_config_pb2

from aegl.config import load_config
from aegl.errors import ConfigError, ExportError
from aegl.export.deliver import deliver, deliver_existing
from aegl.export.triton import write_repository
from aegl.export.triton_config import render
from aegl.progress import SilentProgress
from aegl.runtime import Runtime

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(bool)": "TYPE_BOOL"}
OPTIONS: dict[str, Any] = {
    "max_batch": 8,
    "max_delay_ms": 2.5,
    "instances": 2,
    "device": "auto",
    "ensemble": True,
    "conf": 0.3,
    "exist_ok": False,
}


def parsed(folder: Path) -> Any:
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def type_name(number: int) -> str:
    return str(model_config_pb2.DataType.Name(number))


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    return {}


@pytest.fixture
def repository(case: Any, repositories: dict[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each of the three detectors, with the ensemble."""
    if case.path not in repositories:
        repositories[case.path] = tmp_path_factory.mktemp("triton") / "repository"
        write_repository(case.path, repositories[case.path], "lvis", **OPTIONS)
    return repositories[case.path]


@pytest.fixture
def session(case: Any) -> Any:
    """What ONNX Runtime, which knows nothing of our writer, says of the graph."""
    return onnxruntime.InferenceSession(str(case.path), providers=["CPUExecutionProvider"])


def test_tensors_are_those_of_the_graph(repository: Path, session: Any) -> None:
    config = parsed(repository / "lvis")
    for described, actual in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [tensor.name for tensor in described] == [tensor.name for tensor in actual]
        for tensor, own in zip(described, actual, strict=True):
            sizes = [size if isinstance(size, int) else -1 for size in own.shape[1:]]
            assert type_name(tensor.data_type) == TYPES[own.type]
            assert list(tensor.dims) == (sizes or [1])
            # A tensor of the batch alone, which Triton cannot describe, is seen by clients with an axis of one.
            assert tensor.HasField("reshape") == (sizes == [])
            assert list(tensor.reshape.shape) == []


def test_requests_are_batched_as_asked(repository: Path) -> None:
    config = parsed(repository / "lvis")
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 8)
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 2500
    assert config.version_policy.latest.num_versions == 1


def test_warm_up_runs_through_the_graph(repository: Path, session: Any) -> None:
    samples = parsed(repository / "lvis").model_warmup
    assert [sample.batch_size for sample in samples] == [1, 8]
    for sample in samples:
        (name,) = sample.inputs
        value = sample.inputs[name]
        assert value.random_data
        images = np.zeros((sample.batch_size, *value.dims), dtype=np.float32)
        assert len(session.run(None, {name: images})[0]) == sample.batch_size


@pytest.mark.parametrize(("device", "kind"), [("auto", "KIND_GPU"), ("cuda", "KIND_GPU"), ("cpu", "KIND_CPU")])
def test_instances_run_where_asked_and_never_fall_back(plain: Any, tmp_path: Path, device: str, kind: str) -> None:
    write_repository(plain.path, tmp_path, "m", **{**OPTIONS, "device": device})
    config = parsed(tmp_path / "m")
    (group,) = config.instance_group
    assert (model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind), group.count) == (kind, 2)
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    search = [dict(accelerator.parameters) for accelerator in accelerators]
    assert search == ([] if device == "cpu" else [{"cudnn_conv_algo_search": "HEURISTIC"}])


def test_a_fixed_size_may_have_its_algorithms_searched(windowed: Any, tmp_path: Path) -> None:
    write_repository(windowed.path, tmp_path, "m", **OPTIONS)
    assert not parsed(tmp_path / "m").HasField("optimization")


def test_the_file_and_the_labels_lie_in_the_repository(repository: Path, case: Any) -> None:
    folder = repository / "lvis"
    assert (folder / "1" / "model.onnx").read_bytes() == case.path.read_bytes()
    told = parsed(folder).parameters
    rows = list(csv.DictReader(io.StringIO((folder / told["labels_file"].string_value).read_text("utf-8"))))
    meta = case.meta
    assert [int(row["label"]) for row in rows] == list(range(meta.num_classes))
    assert [int(row["category_id"]) for row in rows] == list(meta.category_ids)
    assert [row["name"] for row in rows] == list(meta.names)
    assert [row["band"] for row in rows] == [meta.band_names[band] for band in meta.class_band]
    assert json.loads(told["thresholds"].string_value)["max_det"] == meta.max_det
    assert str(meta.imgsz) in told["preprocessing"].string_value


def test_the_models_of_the_ensemble_fit_together(repository: Path) -> None:
    ensemble = parsed(repository / "lvis_images")
    assert ensemble.platform == "ensemble"
    known = {tensor.name: (type_name(tensor.data_type), list(tensor.dims)) for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        model = parsed(repository / step.model_name)
        assert model.name == step.model_name
        assert model.max_batch_size == ensemble.max_batch_size == 8
        assert set(step.input_map) == {tensor.name for tensor in model.input}  # every input is given
        assert set(step.output_map) <= {tensor.name for tensor in model.output}
        for tensor in model.input:
            assert known[step.input_map[tensor.name]] == (type_name(tensor.data_type), list(tensor.dims))
        for tensor in model.output:
            if tensor.name in step.output_map:
                known[step.output_map[tensor.name]] = (type_name(tensor.data_type), list(tensor.dims))
    for tensor in ensemble.output:
        assert known[tensor.name] == (type_name(tensor.data_type), list(tensor.dims))


class _Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self._array = name, array

    def as_numpy(self) -> np.ndarray:
        return self._array


@pytest.fixture
def triton_python(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads a model of the Python backend as Triton does, with a stand-in for the module that Triton brings along."""
    utils = ModuleType("triton_python_backend_utils")
    utils.Tensor = _Tensor  # type: ignore[attr-defined]
    utils.TritonError = str  # type: ignore[attr-defined]
    utils.InferenceResponse = lambda tensors, error=None: SimpleNamespace(  # type: ignore[attr-defined]
        tensors={tensor.name: tensor.as_numpy() for tensor in tensors}, error=error
    )
    utils.get_input_tensor_by_name = lambda request, name: _Tensor(name, request[name])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)

    def load(folder: Path) -> Any:
        spec = importlib.util.spec_from_file_location(f"model_{folder.name}", folder / "1" / "model.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        parameters = {key: {"string_value": value.string_value} for key, value in parsed(folder).parameters.items()}
        config = json.dumps({"parameters": parameters})
        model.initialize({"model_repository": str(folder), "model_version": "1", "model_config": config})
        return model

    return load


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_the_ensemble_answers_as_the_runtime(
    repository: Path, case: Any, session: Any, scene: Any, triton_python: Any
) -> None:
    before, after = triton_python(repository / "lvis_preprocess"), triton_python(repository / "lvis_postprocess")
    pictures = [scene(seed, size).transpose(1, 2, 0) for seed, size in enumerate([(64, 96), (80, 60), (200, 333)])]
    requests = [{"image": np.array([[encoded(picture)]], dtype=object)} for picture in pictures]
    runtime = Runtime(case.path, device="cpu")
    found = 0
    for picture, ready in zip(pictures, before.execute(requests), strict=True):
        assert ready.error is None
        names = [output.name for output in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, {"images": ready.tensors["images"]}), strict=True))
        (answer,) = after.execute([{**outputs, "sizes": ready.tensors["sizes"]}])
        (expected,) = runtime.predict([picture], conf=0.3)
        assert json.loads(answer.tensors["detections"][0, 0]) == expected.to_dict()
        found += len(expected)
    assert found > 0


def test_a_broken_image_is_an_error_of_its_own_request(
    plain: Any, tmp_path: Path, scene: Any, triton_python: Any
) -> None:
    write_repository(plain.path, tmp_path, "m", **OPTIONS)
    whole = encoded(scene(0, (64, 64)).transpose(1, 2, 0))
    files = [b"no image", whole, whole[: len(whole) // 2], b""]
    model = triton_python(tmp_path / "m_preprocess")
    answers = model.execute([{"image": np.array([[file]], dtype=object)} for file in files])
    assert [answer.error is None for answer in answers] == [False, True, False, False]
    assert all("0x" not in str(answer.error) for answer in answers)
    assert str(answers[0].error) == "image cannot be read: it is of no kind that Pillow knows"


def test_without_the_ensemble_there_is_the_detector_alone(plain: Any, tmp_path: Path) -> None:
    write_repository(plain.path, tmp_path, "m", **{**OPTIONS, "ensemble": False})
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_model_that_is_there_is_replaced_only_when_told_and_others_never(plain: Any, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / "other").mkdir(parents=True)
    write_repository(plain.path, repository, "m", **OPTIONS)
    stale = repository / "m" / "2"
    stale.mkdir()
    with pytest.raises(ConfigError, match=r"repository/m: exists already; choose another output= or name="):
        write_repository(plain.path, repository, "m", **OPTIONS)
    assert stale.is_dir()
    write_repository(plain.path, repository, "m", **{**OPTIONS, "exist_ok": True})
    assert not stale.exists()
    assert sorted(path.name for path in repository.iterdir()) == [
        "m",
        "m_images",
        "m_postprocess",
        "m_preprocess",
        "other",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]  # nothing half-written is left


@pytest.mark.parametrize("name", ["", "a/b", "../a", "with space", "größe"])
def test_names_that_triton_would_not_take_are_refused(plain: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a model in Triton is named with letters"):
        write_repository(plain.path, tmp_path, name, **OPTIONS)


def small_graph(path: Path, *, batch: int | str) -> Path:
    values = [onnx.helper.make_tensor_value_info(name, 1, [batch, 3]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), str(path))
    return path


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="x has a fixed batch"):
        write_repository(small_graph(tmp_path / "m.onnx", batch=1), tmp_path / "repository", "m", **OPTIONS)


def test_files_that_are_none_of_ours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="lacks the metadata"):
        write_repository(small_graph(tmp_path / "m.onnx", batch="n"), tmp_path / "repository", "m", **OPTIONS)
    (tmp_path / "n.onnx").write_text("no graph")
    with pytest.raises(ExportError, match=r"n\.onnx: cannot be read as ONNX"):
        write_repository(tmp_path / "n.onnx", tmp_path / "repository", "m", **OPTIONS)
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("text", ['"quoted"', "back\\slash", "two\nlines", "größe 大小", "tab\there", ""])
def test_any_text_survives(text: str) -> None:
    config = {"name": text, "parameters": [{"key": text, "value": {"string_value": text}}]}
    found = text_format.Parse(render(config), model_config_pb2.ModelConfig())
    assert found.name == text
    assert found.parameters[text].string_value == text


def test_export_writes_the_repository_where_told(plain: Any, tmp_path: Path) -> None:
    file = Path(shutil.copy(plain.path, tmp_path / "best.onnx"))
    keys = {"format": "triton", "output": str(tmp_path / "served"), "name": "birds", "max_batch": 3, "device": "cpu"}
    exported = {"file": str(file), "report": None, "canvas": None}
    result = deliver(exported, load_config(keys), SilentProgress())
    assert (result["repository"], result["models"]) == (str(tmp_path / "served"), ["birds"])
    assert parsed(tmp_path / "served" / "birds").max_batch_size == 3


def test_a_file_that_exists_is_put_into_a_repository_beside_it(plain: Any, tmp_path: Path) -> None:
    file = Path(shutil.copy(plain.path, tmp_path / "best.onnx"))
    shutil.copy(plain.result["report"], tmp_path / "best.onnx.json")
    result = deliver_existing(file, {"weights": str(file), "format": "triton", "ensemble": True}, SilentProgress())
    assert Path(result["repository"]) == tmp_path / "model_repository"
    assert result["models"] == ["best", "best_preprocess", "best_postprocess", "best_images"]
    assert result["parity"]["passed"] is True
    assert result["opset"] == plain.result["opset"]
    assert parsed(tmp_path / "model_repository" / "best_postprocess").parameters["conf"].string_value == "0.3"


def manifests() -> list[dict[str, Any]]:
    """The YAML documents of docs/triton.md."""
    text = (Path(__file__).parents[2] / "docs" / "triton.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [document for block in blocks for document in yaml.safe_load_all(block)]


def test_the_manifests_of_the_documentation_fit_together() -> None:
    found = {document["kind"]: document for document in manifests() if "kind" in document}
    deployment, service = found["Deployment"], found["Service"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert found["PodMonitor"]["spec"]["selector"]["matchLabels"] == labels
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert {endpoint["port"] for endpoint in found["PodMonitor"]["spec"]["podMetricsEndpoints"]} <= ports
    scaler = found["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (adapter,) = [document for document in manifests() if "rules" in document]
    (rule,) = adapter["rules"]["custom"]
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == rule["name"]["as"]
