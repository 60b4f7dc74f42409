"""A model repository of Triton Inference Server from an exported file."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aegl.errors import ConfigError, ExportError, RunError
from aegl.export.triton_config import LABELS_FILE, Signature, Word, detector_config, render
from aegl.metadata import ModelMeta
from aegl.runtime.graph import META_KEY

_PYTHON_MODELS = Path(__file__).parent / "triton_models"
_DTYPES = {"TYPE_FP32": "float32", "TYPE_UINT8": "uint8", "TYPE_FP16": "float16"}
_TEXT = {"data_type": Word("TYPE_STRING"), "dims": [1]}


def write_repository(
    onnx_file: Path,
    repository: Path,
    name: str,
    *,
    max_batch: int,
    max_delay_ms: float,
    instances: int,
    device: str,
    ensemble: bool,
    conf: float,
    exist_ok: bool,
) -> list[Path]:
    """Write ``repository/name``, ready to be served, and return the folders of the models written.

    Args:
        onnx_file: written by ``aegl export``.
        repository: folder of all models of a server; models beside this one are left alone.
        name: of the model.
        max_batch, max_delay_ms, instances, device: see :func:`detector_config`.
        ensemble: also write ``name_images``, which takes image files and gives JSON, and the two models of the Python
            backend that it needs, ``name_preprocess`` and ``name_postprocess``.
        conf: lowest score that the ensemble reports.
        exist_ok: replace models of these names.

    Raises:
        ExportError: if the file was not written by aegl, or cannot be served.
        ConfigError: if a model of the name is there already, or the name is none that Triton takes.
        RunError: if something cannot be written.
    """
    if not name or not all(letter.isascii() and (letter.isalnum() or letter in "_-.") for letter in name):
        raise ConfigError(f"name={name}: a model in Triton is named with letters, digits, '_', '-' and '.'")
    graph = Signature.read(onnx_file)
    if META_KEY not in graph.props:
        raise ExportError(f"{onnx_file}: an ONNX file, but not one written by `aegl export`: it lacks the metadata")
    content = json.loads(graph.props[META_KEY])
    meta = ModelMeta.from_dict(content["meta"])
    size = tuple(-(-side // meta.stride) * meta.stride for side in (meta.imgsz, meta.max_size))
    detector = detector_config(
        graph,
        name,
        size=(size[0], size[1]),
        max_batch=max_batch,
        max_delay_ms=max_delay_ms,
        instances=instances,
        device=device,
    )
    configs = {name: detector, **(_ensemble(graph, name, max_batch, conf) if ensemble else {})}
    taken = [str(repository / model) for model in configs if (repository / model).exists()]
    if taken and not exist_ok:
        raise ConfigError(f"{taken[0]}: exists already; choose another output= or name=, or give exist_ok=true")
    # Beside the repository, not in it: a server that polls it must not see half a model.
    temporary = repository.with_name(f".{repository.name}.{os.getpid()}")
    try:
        for model, config in configs.items():
            _write_model(temporary / model, config, graph, content, onnx_file)
        repository.mkdir(parents=True, exist_ok=True)
        for model in configs:
            shutil.rmtree(repository / model, ignore_errors=True)
            (temporary / model).replace(repository / model)
    except OSError as error:
        raise RunError(f"{error.filename or repository}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [repository / model for model in configs]


def _write_model(
    folder: Path, config: Mapping[str, Any], graph: Signature, content: Mapping[str, Any], onnx_file: Path
) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(render(config), encoding="utf-8")
    if config.get("backend") == "onnxruntime":
        shutil.copyfile(onnx_file, version / "model.onnx")
        (folder / LABELS_FILE).write_text(_labels(ModelMeta.from_dict(content["meta"])), encoding="utf-8")
    elif config.get("backend") == "python":
        part = folder.name.rpartition("_")[2]
        shutil.copyfile(_PYTHON_MODELS / f"{part}.py", version / "model.py")
        (version / "meta.json").write_text(json.dumps(_told(graph, content)), encoding="utf-8")


def _labels(meta: ModelMeta) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("label", "category_id", "band", "name"))
    for label, (category, band, name) in enumerate(zip(meta.category_ids, meta.class_band, meta.names, strict=True)):
        writer.writerow((label, category, meta.band_names[band], name))
    return text.getvalue()


def _told(graph: Signature, content: Mapping[str, Any]) -> dict[str, Any]:
    """What the models of the Python backend have to know of the detector."""
    (images,) = graph.inputs
    return {
        "meta": content["meta"],
        "canvas": content["canvas"],
        "dtype": _DTYPES[images.data_type],
        "channels_last": images.dims[-1] == 3,
        "masks": any(tensor.name == "masks" for tensor in graph.outputs),
    }


def _ensemble(graph: Signature, name: str, max_batch: int, conf: float) -> dict[str, dict[str, Any]]:
    """The models around the detector and the one that joins them."""
    (images,) = graph.inputs
    used = [tensor for tensor in graph.outputs if tensor.name != "complete"]
    sizes = {"name": "sizes", "data_type": Word("TYPE_INT32"), "dims": [4]}
    image, detections = {"name": "image", **_TEXT}, {"name": "detections", **_TEXT}
    before, after, whole = f"{name}_preprocess", f"{name}_postprocess", f"{name}_images"
    python = {
        "backend": "python",
        "max_batch_size": max_batch,
        "instance_group": [{"count": 2, "kind": Word("KIND_CPU")}],
    }
    threshold = [{"key": "conf", "value": {"string_value": str(conf)}}]
    return {
        before: {"name": before, **python, "input": [image], "output": [images.described(), sizes]},
        after: {
            "name": after,
            **python,
            "input": [*(tensor.described() for tensor in used), sizes],
            "output": [detections],
            "parameters": threshold,
        },
        whole: {
            "name": whole,
            "platform": "ensemble",
            "max_batch_size": max_batch,
            "input": [image],
            "output": [detections],
            "ensemble_scheduling": {
                "step": [
                    _step(before, ["image"], [images.name, "sizes"]),
                    _step(name, [images.name], [tensor.name for tensor in used]),
                    _step(after, [*(tensor.name for tensor in used), "sizes"], ["detections"]),
                ]
            },
        },
    }


def _step(model: str, inputs: list[str], outputs: list[str]) -> dict[str, Any]:
    """One model of the ensemble; tensors keep their names on the way."""
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": [{"key": tensor, "value": tensor} for tensor in inputs],
        "output_map": [{"key": tensor, "value": tensor} for tensor in outputs],
    }
