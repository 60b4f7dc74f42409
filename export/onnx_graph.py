"""From a detector to an ONNX file: the inference graph as it is, with what one must know to use it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from aegl.data.preprocess import Preprocess
from aegl.errors import ExportError, RunError
from aegl.export.calibration import calibration_images
from aegl.export.graph_forms import USUAL_FORM, GraphForm, apply_form
from aegl.export.half import in_half
from aegl.export.int8 import quantise
from aegl.export.onnx_translate import translations
from aegl.export.opsets import choose_opset
from aegl.export.tolerances import PrecisionName
from aegl.metadata import ModelMeta
from aegl.models.mask_rcnn import MaskRCNN
from aegl.runtime.graph import META_KEY, OUTPUTS

_EXAMPLE_BATCH = 2
_MAX_BYTES = 2**31 - 2**24
"""What a protobuf holds, less room for the graph itself."""


@dataclass(frozen=True)
class Exported:
    """A written file.

    Args:
        path: the ONNX file.
        opset: its opset.
        canvas: height and width of its input, or None where any multiple of the stride will do.
    """

    path: Path
    opset: int
    canvas: tuple[int, int] | None


class _InferenceGraph(nn.Module):
    def __init__(self, model: MaskRCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.model.inference_tensors(images)


def export_onnx(
    model: MaskRCNN,
    meta: ModelMeta,
    path: Path,
    *,
    config: Mapping[str, Any],
    opset: int | None = None,
    dynamic: bool = True,
    form: GraphForm = USUAL_FORM,
    precision: PrecisionName = "fp32",
    calibration: Sequence[Path] = (),
) -> Exported:
    """Write a detector as ONNX.

    The file takes ``images`` (``[batch, 3, height, width]`` float32, RGB in 0..255; it normalises them) and gives the
    fields of :class:`aegl.types.Detections`, both as ``form`` may change. The batch is always free; height and width
    too with ``dynamic``.

    Args:
        model: the detector, on the CPU.
        meta: what the file must know of itself.
        path: where to write; an older file is replaced only by a complete new one.
        config: configuration of the model, kept in the file.
        opset: ONNX opset, None for the default.
        dynamic: free height and width; false fixes them at ``meta.imgsz`` by ``meta.max_size``, padded to the stride.
        form: what the graph takes and gives.
        precision: see :func:`aegl.export.half.in_half` and :func:`aegl.export.int8.quantise`.
        calibration: image files that fix the ranges of int8.

    Raises:
        DataError: if an image of ``calibration`` cannot be read.
        ExportError: if the backbone cannot take images of any size, or the graph cannot be written as ONNX.
        RunError: if the file cannot be written.
    """
    if dynamic and not model.backbone.dynamic_size:
        raise ExportError(
            "dynamic=true: this backbone's window attention fixes the image size of the graph; give dynamic=false, and "
            "imgsz= and max_size= for the size to fix"
        )
    version = choose_opset(opset)
    size = sum(parameter.nbytes for parameter in model.parameters())
    if size > _MAX_BYTES:
        raise ExportError(f"the weights take {size / 1e9:.1f} GB, an ONNX file holds 2 GB; use a smaller backbone")
    canvas = None if dynamic else (_padded(meta.imgsz, meta.stride), _padded(meta.max_size, meta.stride))
    model = model.eval()
    proto = _trace(in_half(model) if precision == "fp16" else model, meta, canvas, version).model_proto
    if precision == "int8":
        preprocess = Preprocess(meta.imgsz, meta.max_size, meta.stride, meta.pad_value, canvas)
        proto = quantise(proto, calibration_images(calibration, preprocess))
    _forget_origin(proto)
    apply_form(proto, form)
    content = {
        "meta": meta.to_dict(),
        "config": dict(config),
        "canvas": canvas,
        "form": form.to_dict(),
        "precision": precision,
    }
    onnx.helper.set_model_props(proto, {META_KEY: json.dumps(content), **_readable(meta)})
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path}: the exported graph is not valid ONNX ({error})") from error
    _write(proto, path)
    return Exported(path, version, canvas)


def _trace(model: MaskRCNN, meta: ModelMeta, canvas: tuple[int, int] | None, opset: int) -> Any:
    height, width = canvas or (4 * meta.stride, 5 * meta.stride)
    example = torch.zeros(_EXAMPLE_BATCH, 3, height, width)
    # From 2, as older exporters find a guard against 1 in some backbones; the graph has none, and parity runs batch 1.
    shape: dict[int, Any] = {0: torch.export.Dim("batch", min=2, max=4096)}
    if canvas is None:
        shape[2] = meta.stride * torch.export.Dim("rows", min=1, max=256)
        shape[3] = meta.stride * torch.export.Dim("columns", min=1, max=256)
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                _InferenceGraph(model),
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=["images"],
                output_names=list(OUTPUTS),
                dynamic_shapes=({**shape},),
                custom_translation_table=translations(),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        # The exporter's own text is a screenful of advice to its developers; the cause stands behind it.
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"
        hint = "" if canvas else "; dynamic=false, which fixes the image size, may help"
        raise ExportError(f"the graph cannot be written as ONNX ({reason}){hint}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks to both standard streams and in warnings; none of it is for the user."""
    nowhere = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield


def _forget_origin(proto: Any) -> None:
    """Drop the exporter's notes: a quarter of a small file, and paths of this machine in every node."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]


def _readable(meta: ModelMeta) -> dict[str, str]:
    """The same facts for people and for other tools."""
    return {
        "names": json.dumps(dict(enumerate(meta.names)), ensure_ascii=False),
        "bands": json.dumps([meta.band_names[band] for band in meta.class_band]),
        "preprocessing": f"RGB 0..255, short side {meta.imgsz}, long side at most {meta.max_size}, padded to multiples "
        f"of {meta.stride} on the right and below with {meta.pad_value}",
        "thresholds": json.dumps({"conf": meta.conf, "iou": meta.iou, "max_det": meta.max_det}),
        "method": meta.method,
        "aegl_version": meta.aegl_version,
    }


def _padded(side: int, stride: int) -> int:
    return -(-side // stride) * stride


def _write(proto: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(cast(bytes, proto.SerializeToString()))
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        temporary.unlink(missing_ok=True)
