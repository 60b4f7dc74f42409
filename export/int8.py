"""Static quantisation of the layers of an exported graph; boxes, RoIAlign and NMS are not touched."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from aegl.errors import ExportError
from aegl.runtime.graph import INPUT

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_IN_FLOAT = {
    "model.rpn.objectness",
    "model.rpn.deltas",
    "model.box_head.classifier",
    "model.box_head.regressor",
    "model.mask_head.predictor",
}
"""Last layers: next to nothing of the time, and all of the scores and offsets."""
_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes from which modules a node comes."""


def quantise(proto: Any, images: Iterable[np.ndarray]) -> Any:
    """A graph whose convolutions and matrix products run in int8 between quantise/dequantise pairs (QDQ).

    Activations are unsigned 8 bits with one range each, the extremes met in ``images``; weights signed 8 bits with one
    scale per output channel. The last layers of RPN and heads stay in float32.

    Args:
        proto: the graph with the usual input, and with the exporter's notes; used up.
        images: ``[B, 3, H, W]`` float32 RGB in 0..255, like those the model will see.

    Raises:
        ExportError: if the graph cannot be quantised.
    """
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        path = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                proto,
                str(path),
                _Reader(images),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=_layers(proto.graph),
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise ExportError(f"int8=true: the graph cannot be quantised ({error})") from error
        return onnx.load(str(path))


class _Reader(CalibrationDataReader):
    def __init__(self, images: Iterable[np.ndarray]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, or None at the end."""
        images = next(self._images, None)
        return None if images is None else {INPUT: images}


def _layers(graph: Any) -> list[str]:
    """Names of the nodes that multiply by weights and may be quantised."""
    weights = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in _LAYERS and weights.intersection(node.input[1:2]) and not _IN_FLOAT & _modules(node)
    ]


def _modules(node: Any) -> set[str]:
    (noted,) = [entry.value for entry in node.metadata_props if entry.key == _SCOPES] or ["[]"]
    return set(ast.literal_eval(noted))


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """The quantiser advises its developers through the root logger and standard output."""
    root = logging.getLogger()
    root.addFilter(_is_ours)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name != "root"
