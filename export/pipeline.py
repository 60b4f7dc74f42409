"""Export from end to end: write the file, run it against PyTorch, keep the report beside it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aegl.data.preprocess import Preprocess
from aegl.engine.backend import Backend, TorchBackend
from aegl.engine.runs import write_text
from aegl.errors import DataError
from aegl.export.ap_delta import ap_text, loses_much
from aegl.export.backend import OnnxBackend
from aegl.export.graph_forms import USUAL_FORM, GraphForm
from aegl.export.onnx_graph import Exported, export_onnx
from aegl.export.parity import check_parity
from aegl.export.precision import FULL_PRECISION, Precision
from aegl.export.tolerances import TOLERANCES
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
    form: GraphForm = USUAL_FORM,
    precision: Precision = FULL_PRECISION,
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
        form: what the graph takes and gives.
        precision: in which it computes, and on which images its AP is compared with float32.

    Returns:
        ``file``, ``report`` (path of the JSON), ``opset``, ``canvas``, ``form``, ``megabytes``, ``parity``: None where
        it was not checked, else see :meth:`ParityReport.to_dict`; its ``passed`` is true, false, or None (nothing to
        compare). ``precision``: ``name``, ``calibration_images`` (their number), ``ap`` (see :meth:`Judge.compare`;
        None where it was not compared) and ``text``, which says so to people.

    Raises:
        DataError: if an image of the calibration cannot be read.
        ExportError: if the model cannot be exported as asked for.
        RunError: if a file cannot be written, or ONNX Runtime fails on the new one.
    """
    progress.message(f"writing {path}")
    exported = export_onnx(
        model,
        meta,
        path,
        config=config,
        opset=opset,
        dynamic=dynamic,
        form=form,
        precision=precision.name,
        calibration=precision.calibration,
    )
    facts = {"opset": exported.opset, "canvas": exported.canvas, "form": form.to_dict()}
    sidecar = path.with_name(f"{path.name}.json")
    shown: dict[str, Any] = {"parity": None, "precision": None}
    # At once, so that a comparison that breaks off does not leave an older file's report beside this one.
    _write_report(sidecar, meta, facts | shown)
    if parity:
        progress.message("comparing it with PyTorch")
        # On the CPU on both sides: the question is the graph, not the device.
        compared = check_parity(
            TorchBackend(model, meta),
            OnnxBackend(path, device="cpu"),
            meta,
            canvas=exported.canvas,
            masks=form.masks,
            tolerances=TOLERANCES[precision.name],
        )
        shown["parity"] = compared.to_dict()
        _write_report(sidecar, meta, facts | shown)
        if not compared.passed:
            LOGGER.warning("%s: %s", path, compared.headline())
    shown["precision"] = _precision_report(model, meta, path, exported, form, precision, progress)
    _write_report(sidecar, meta, facts | shown)
    return {"file": str(path), "report": str(sidecar), "megabytes": path.stat().st_size / 2**20, **facts, **shown}


def _precision_report(
    model: MaskRCNN,
    meta: ModelMeta,
    path: Path,
    exported: Exported,
    form: GraphForm,
    precision: Precision,
    progress: Progress,
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "name": precision.name,
        "calibration_images": len(precision.calibration),
        "ap": None,
        "text": "",
    }
    if precision.name == "fp32":
        return report
    reason = precision.unjudged
    if precision.judge is not None:
        progress.message("comparing its AP with that of fp32")
        models: dict[str, Backend] = {
            "fp32": TorchBackend(model, meta),
            precision.name: OnnxBackend(path, device="cpu"),
        }
        preprocess = Preprocess(meta.imgsz, meta.max_size, meta.stride, meta.pad_value, exported.canvas)
        try:
            report["ap"] = precision.judge.compare(models, preprocess, masks=form.masks != "none", progress=progress)
        except DataError as error:  # the file is made, whether or not the images are there
            reason = str(error)
    report["text"] = (
        f"{precision.name}: its AP was not compared with fp32 ({reason})"
        if report["ap"] is None
        else ap_text(precision.name, report["ap"])
    )
    if report["ap"] is None or loses_much(report["ap"]):
        LOGGER.warning("%s: %s", path, report["text"])
    return report


def _write_report(sidecar: Path, meta: ModelMeta, facts: Mapping[str, Any]) -> None:
    write_text(sidecar, json.dumps({"meta": meta.to_dict(), **facts}, indent=1, allow_nan=False) + "\n")
