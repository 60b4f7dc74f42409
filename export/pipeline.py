"""Export from end to end: write the file, run it against PyTorch, keep the report beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aegl.engine.backend import TorchBackend
from aegl.engine.runs import write_text
from aegl.export.backend import OnnxBackend
from aegl.export.onnx_graph import Exported, export_onnx
from aegl.export.parity import check_parity
from aegl.metadata import ModelMeta
from aegl.models.mask_rcnn import MaskRCNN
from aegl.progress import Progress

LOGGER = logging.getLogger("aegl")


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
    """Write ``path`` and, beside it, ``path.json``: what the file is and whether it was shown to equal the model.

    A file that disagrees with PyTorch is kept, to be looked into, with a report that says so, and is warned of.

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
        ``file``, ``report`` (path of the JSON), ``opset``, ``canvas``, ``megabytes``, ``parity``: None where it was not
        checked, else see :meth:`ParityReport.to_dict`; its ``passed`` is true, false, or None (nothing to compare).

    Raises:
        ExportError: if the model cannot be exported as asked for.
        RunError: if a file cannot be written, or ONNX Runtime fails on the new one.
    """
    progress.message(f"writing {path}")
    exported = export_onnx(model, meta, path, config=config, opset=opset, dynamic=dynamic)
    sidecar = path.with_name(f"{path.name}.json")
    # At once, so that a comparison that breaks off does not leave an older file's report beside this one.
    _write_report(sidecar, meta, exported, None)
    report = None
    if parity:
        progress.message("comparing it with PyTorch")
        # On the CPU on both sides: the question is the graph, not the device.
        onnx = OnnxBackend(path, device="cpu")
        compared = check_parity(TorchBackend(model, meta), onnx, meta, canvas=exported.canvas)
        report = compared.to_dict()
        _write_report(sidecar, meta, exported, report)
        if not compared.passed:
            LOGGER.warning("%s: %s", path, compared.headline())
    return {
        "file": str(path),
        "report": str(sidecar),
        "opset": exported.opset,
        "canvas": exported.canvas,
        "megabytes": path.stat().st_size / 2**20,
        "parity": report,
    }


def _write_report(sidecar: Path, meta: ModelMeta, exported: Exported, parity: Mapping[str, Any] | None) -> None:
    content = {"meta": meta.to_dict(), "opset": exported.opset, "canvas": exported.canvas, "parity": parity}
    write_text(sidecar, json.dumps(content, indent=1, allow_nan=False) + "\n")
