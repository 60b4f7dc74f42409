"""Model configurations of Triton Inference Server, from what the ONNX graph itself says of its inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from aegl.errors import ExportError

_TYPES = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.BOOL: "TYPE_BOOL",
}


LABELS_FILE = "labels.csv"
"""Of every class its label, category id, frequency band and name. It is not Triton's ``label_filename``, which names
the largest entries of an output by their position: here the classes are values."""


class Word(str):
    """A name of an enumeration: written without quotes."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of the graph.

    Args:
        name: its name.
        data_type: Triton's name of its type.
        dims: its sizes without the batch, -1 where free.
    """

    name: str
    data_type: Word
    dims: tuple[int, ...]

    def described(self) -> dict[str, Any]:
        """Its block of the configuration; Triton knows no tensor of the batch alone, so that becomes ``[1]``."""
        block: dict[str, Any] = {"name": self.name, "data_type": self.data_type, "dims": list(self.dims) or [1]}
        return block if self.dims else {**block, "reshape": {"shape": []}}


@dataclass(frozen=True)
class Signature:
    """What an exported file takes and gives, and what it knows of itself."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    props: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Signature:
        """Read it from the file.

        Raises:
            ExportError: if the file is no ONNX, or its batch is fixed, which rules out batching by the server.
        """
        try:
            model = onnx.load(str(path), load_external_data=False)
        except Exception as error:  # protobuf's own exceptions are not public
            raise ExportError(f"{path}: cannot be read as ONNX ({type(error).__name__})") from error
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = tuple(_tensor(path, value) for value in model.graph.input if value.name not in weights)
        outputs = tuple(_tensor(path, value) for value in model.graph.output)
        return cls(inputs, outputs, {prop.key: prop.value for prop in model.metadata_props})


def _tensor(path: Path, value: Any) -> Tensor:
    described = value.type.tensor_type
    dims = [int(dim.dim_value) if dim.HasField("dim_value") else -1 for dim in described.shape.dim]
    if not dims or dims[0] != -1:
        raise ExportError(f"{path}: {value.name} has a fixed batch, so Triton cannot batch requests; export it anew")
    return Tensor(value.name, Word(_TYPES[described.elem_type]), tuple(dims[1:]))


def detector_config(
    graph: Signature,
    name: str,
    *,
    size: tuple[int, int],
    max_batch: int,
    max_delay_ms: float,
    instances: int,
    device: str,
) -> dict[str, Any]:
    """The configuration of the ONNX model.

    Args:
        graph: of the file.
        name: of the model in the repository.
        size: height and width of the warm-up images, where the graph leaves them free.
        max_batch: most images in one run.
        max_delay_ms: how long a request may wait for others to be run with.
        instances: copies of the model on each GPU, or on the CPU.
        device: ``cpu``, or anything else for the GPUs: on a machine without one, Triton then refuses to load the model
            instead of running it on the CPU.
    """
    config: dict[str, Any] = {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": max_batch,
        "version_policy": {"latest": {"num_versions": 1}},
        "input": [tensor.described() for tensor in graph.inputs],
        "output": [tensor.described() for tensor in graph.outputs],
        "instance_group": [{"count": instances, "kind": Word("KIND_CPU" if device == "cpu" else "KIND_GPU")}],
        "dynamic_batching": {"max_queue_delay_microseconds": round(1000 * max_delay_ms)},
        "model_warmup": [_warm_up(graph, size, batch) for batch in sorted({1, max_batch})],
        "parameters": _parameters(graph.props),
    }
    if device != "cpu" and any(-1 in tensor.dims for tensor in graph.inputs):
        # The default tries every algorithm anew for every size of image, seconds each time.
        search = {"key": "cudnn_conv_algo_search", "value": "HEURISTIC"}
        config["optimization"] = {
            "execution_accelerators": {"gpu_execution_accelerator": [{"name": "cuda", "parameters": [search]}]}
        }
    return config


def _warm_up(graph: Signature, size: tuple[int, int], batch: int) -> dict[str, Any]:
    inputs = []
    for tensor in graph.inputs:
        free = iter(size)
        dims = [next(free) if dim == -1 else dim for dim in tensor.dims]
        value = {"data_type": tensor.data_type, "dims": dims, "random_data": True}
        inputs.append({"key": tensor.name, "value": value})
    return {"name": f"batch of {batch}", "batch_size": batch, "inputs": inputs}


def _parameters(props: Mapping[str, str]) -> list[dict[str, Any]]:
    """What a client has to know, readable over the server's own protocol (``GET /v2/models/NAME/config``)."""
    told = {key: props[key] for key in ("preprocessing", "thresholds", "method", "aegl_version") if key in props}
    told["labels_file"] = LABELS_FILE
    return [{"key": key, "value": {"string_value": value}} for key, value in told.items()]


def render(config: Mapping[str, Any]) -> str:
    """A configuration in protobuf's text format; lists are repeated fields, of scalars in brackets."""
    return "\n".join(_lines(config, "")) + "\n"


def _lines(block: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in block.items():
        blocks = value if isinstance(value, list) and value and isinstance(value[0], Mapping) else [value]
        for item in blocks:
            if isinstance(item, Mapping):
                yield f"{indent}{key} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{key}: {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Word):
        return json.dumps(value, ensure_ascii=False)  # protobuf reads the same escapes
    return str(value)
