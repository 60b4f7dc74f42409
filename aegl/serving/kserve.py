"""Tensors in KServe's Open Inference Protocol (version 2) over REST: JSON, and the binary tensor data extension.

Source: https://github.com/kserve/open-inference-protocol, and the extension as Triton describes it: the body is the
JSON followed by the raw little-endian bytes of the tensors marked so, and a header says how long the JSON is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aegl.serving.refusal import Refusal

HEADER = "Inference-Header-Content-Length"
_DTYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}
_OF_ONNX = {"float": "FP32", "float16": "FP16", "double": "FP64", "bool": "BOOL"}


@dataclass(frozen=True)
class Tensor:
    """An input or output of the graph: ``shape`` has -1 where any size will do."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """As the protocol's metadata has it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class InferRequest:
    """A parsed request.

    Args:
        id: the client's name for it, given back.
        inputs: arrays by name, of the declared types and shapes.
        outputs: names of the outputs wanted, each with whether it is wanted as binary data.
    """

    id: str | None
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, bool]


def of_graph(name: str, onnx_type: str, shape: Sequence[int | str | None]) -> Tensor:
    """A tensor as ONNX Runtime describes it: ``tensor(float)`` and sizes, free ones being names or None."""
    kind = onnx_type.removeprefix("tensor(").removesuffix(")")
    sizes = tuple(size if isinstance(size, int) else -1 for size in shape)
    return Tensor(name, _OF_ONNX.get(kind, kind.upper()), sizes)


def parse(
    body: bytes, header_length: str | None, *, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> InferRequest:
    """Read a request.

    Args:
        body: all of it.
        header_length: value of :data:`HEADER`, None where it is not given.
        inputs: what the graph takes; all are required.
        outputs: what the graph gives.

    Raises:
        Refusal: 400 with what is wrong with it.
    """
    length = _json_length(header_length, len(body))
    content = _mapping(_json(body[:length]), "the request")
    reader = _Binary(memoryview(body)[length:])
    declared = {tensor.name: tensor for tensor in inputs}
    given: dict[str, np.ndarray] = {}
    for entry in _list_of_mappings(content, "inputs"):
        name = entry.get("name")
        if not isinstance(name, str) or name not in declared:
            raise _bad(f"input {name!r}: the model has no such input; its inputs are {', '.join(declared)}")
        if name in given:
            raise _bad(f"input {name}: given twice")
        given[name] = _array(entry, declared[name], reader)
    if reader.left:
        raise _bad(f"{reader.left} bytes of binary data belong to no input")
    missing = [name for name in declared if name not in given]
    if missing:
        raise _bad(f"input {missing[0]}: missing")
    identity = content.get("id")
    if identity is not None and not isinstance(identity, str):
        raise _bad("id: must be a string")
    return InferRequest(identity, given, _wanted(content, [tensor.name for tensor in outputs]))


def respond(
    request: InferRequest, outputs: Mapping[str, np.ndarray], *, model: str, version: str
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the answer."""
    entries, blobs = [], []
    for name, binary in request.outputs.items():
        array = np.ascontiguousarray(outputs[name])
        entry: dict[str, Any] = {"name": name, "datatype": _NAMES[array.dtype], "shape": list(array.shape)}
        if binary:
            blobs.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = array.ravel().tolist()
        entries.append(entry)
    content = {"model_name": model, "model_version": version, "outputs": entries}
    if request.id is not None:
        content["id"] = request.id
    head = json.dumps(content).encode()
    if not blobs:
        return head, {"Content-Type": "application/json"}
    return b"".join([head, *blobs]), {"Content-Type": "application/octet-stream", HEADER: str(len(head))}


class _Binary:
    """The binary data behind the JSON, taken in order."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    @property
    def left(self) -> int:
        return len(self._data)

    def take(self, size: int) -> memoryview:
        taken, self._data = self._data[:size], self._data[size:]
        return taken


def _json_length(header_length: str | None, body_length: int) -> int:
    if header_length is None:
        return body_length
    is_number = header_length.isascii() and header_length.isdigit() and len(header_length) < 16
    if not is_number or int(header_length) > body_length:
        raise _bad(f"{HEADER}: {header_length[:40]}: must be a number of bytes, at most the body's {body_length}")
    return int(header_length)


def _json(text: bytes) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # also for text that is not UTF-8
        raise _bad(f"the request is not valid JSON ({str(error)[:200] or 'nested too deeply'})") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _array(entry: Mapping[str, Any], declared: Tensor, reader: _Binary) -> np.ndarray:
    name = declared.name
    if entry.get("datatype") != declared.datatype:
        raise _bad(f"input {name}: datatype {entry.get('datatype')!r:.40}: must be {declared.datatype}")
    shape = _shape(entry.get("shape"), declared)
    count = math.prod(shape)
    dtype = np.dtype(_DTYPES[declared.datatype])
    size = _parameters(entry, f"input {name}").get("binary_data_size")
    if size is not None:
        array = _from_bytes(name, reader, size, dtype.newbyteorder("<"), count)
    elif "data" in entry:
        array = _from_json(name, entry["data"], dtype, count)
    else:
        raise _bad(f"input {name}: neither `data` nor `binary_data_size` is given")
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise _bad(f"input {name}: holds numbers that are not finite in {declared.datatype}")
    return array.reshape(shape)


def _shape(value: Any, declared: Tensor) -> tuple[int, ...]:
    name, wanted = declared.name, list(declared.shape)
    if not isinstance(value, list) or not all(type(size) is int and size > 0 for size in value):
        raise _bad(f"input {name}: shape {str(value)[:60]}: must be a list of whole numbers above 0, as {wanted}")
    fits = len(value) == len(wanted) and all(own in (-1, size) for size, own in zip(value, wanted, strict=True))
    if not fits:
        raise _bad(f"input {name}: shape {str(value)[:60]}: must be {wanted}, with any size for -1")
    return tuple(value)


def _from_bytes(name: str, reader: _Binary, size: Any, dtype: np.dtype[Any], count: int) -> np.ndarray:
    if type(size) is not int or size != count * dtype.itemsize:
        raise _bad(
            f"input {name}: binary_data_size {str(size)[:40]}: its shape and datatype take {count * dtype.itemsize}"
        )
    if size > reader.left:
        raise _bad(f"input {name}: {size} bytes of binary data announced, {reader.left} came; is {HEADER} given?")
    return np.frombuffer(reader.take(size), dtype=dtype)


def _from_json(name: str, data: Any, dtype: np.dtype[Any], count: int) -> np.ndarray:
    if not isinstance(data, list):
        raise _bad(f"input {name}: data: must be a list")
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError, RecursionError):
        raise _bad(f"input {name}: data: must be numbers in a flat list, or nested as its shape is") from None
    if array.dtype.kind not in "iuf" or array.size != count:
        held = f"{array.size} values" if array.dtype.kind in "iuf" else "something else than numbers"
        raise _bad(f"input {name}: data: holds {held}; its shape takes {count} numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(converted, array):
        raise _bad(f"input {name}: data: holds numbers that are no {_NAMES[dtype]}")
    return converted


def _wanted(content: Mapping[str, Any], names: Sequence[str]) -> dict[str, bool]:
    every = bool(_parameters(content, "the request").get("binary_data_output", False))
    if not content.get("outputs"):
        return dict.fromkeys(names, every)
    wanted: dict[str, bool] = {}
    for entry in _list_of_mappings(content, "outputs"):
        name = entry.get("name")
        if not isinstance(name, str) or name not in names:
            raise _bad(f"output {name!r:.60}: the model has no such output; its outputs are {', '.join(names)}")
        parameters = _parameters(entry, f"output {name}")
        if parameters.get("classification") is not None:
            raise _bad(f"output {name}: the classification extension is not supported")
        wanted[name] = bool(parameters.get("binary_data", every))
    return wanted


def _parameters(entry: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    value = entry.get("parameters") or {}
    parameters = _mapping(value, f"{label}: parameters")
    if any(key.startswith("shared_memory") for key in parameters):
        raise _bad(f"{label}: shared memory is not supported")
    return parameters


def _list_of_mappings(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise _bad(f"{key}: must be a list of objects")
    return value


def _mapping(value: Any, label: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad(f"{label}: must be a JSON object")
    return value


def _bad(reason: str) -> Refusal:
    return Refusal(400, reason)
