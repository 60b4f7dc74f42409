"""Export from end to end: write the file, run it against PyTorch, keep the report beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aegl.engine.backend import TorchBackend
from aegl.engine.runs import write_text
from aegl.export.backend import OnnxBackend
from aegl.export.onnx_graph import export_onnx
from aegl.export.parity import check_parity
from aegl.metadata import ModelMeta
from aegl.models.mask_rcnn import MaskRCNN
from aegl.progress import Progress


def export_and_prove(
    model: MaskRCNN,
    meta: ModelMeta,
    path: Path,
    *,
    config: Mapping[str, Any],
    opset: int | None,
    dynamic: bool,
    parity: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Write ``path`` and ``path.json``.

    Args:
        model: the detector, on the CPU.
        meta: its metadata.
        path: the ONNX file to write.
        config: configuration of the model, kept in the file.
        opset: ONNX opset, None for the default.
        dynamic: free height and width.
        parity: compare with PyTorch.
        progress: told of the steps.

    Returns:
        ``file``, ``report`` (path of the JSON), ``opset``, ``canvas``, ``megabytes``, ``parity`` (or None).

    Raises:
        ExportError: if the model cannot be exported as asked for.
    """
    progress.message(f"writing {path}")
    exported = export_onnx(model, meta, path, config=config, opset=opset, dynamic=dynamic)
    report = None
    if parity:
        progress.message("comparing it with PyTorch")
        # On the CPU on both sides: the question is the graph, not the device.
        onnx = OnnxBackend(path, device="cpu")
        report = check_parity(TorchBackend(model, meta), onnx, meta, canvas=exported.canvas).to_dict()
    sidecar = path.with_name(f"{path.name}.json")
    content = {"meta": meta.to_dict(), "opset": exported.opset, "canvas": exported.canvas, "parity": report}
    write_text(sidecar, json.dumps(content, indent=1) + "\n")
    return {
        "file": str(path),
        "report": str(sidecar),
        "opset": exported.opset,
        "canvas": exported.canvas,
        "megabytes": path.stat().st_size / 2**20,
        "parity": report,
    }
