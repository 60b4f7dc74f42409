"""What `aegl export` does with a written file: shows where its operators run, and puts it where Triton finds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from aegl.config import Config, load_config
from aegl.errors import ExportError
from aegl.export.placement import add_to_report, measure_placement, require_gpu
from aegl.export.triton import write_repository
from aegl.progress import Progress
from aegl.runtime import Runtime

REPOSITORY = "model_repository"
_ENSEMBLE_CONF = 0.3
"""As of `aegl predict`: what an ensemble reports is looked at, not scored. It stands in its configuration."""


def deliver(exported: Mapping[str, Any], config: Config, progress: Progress) -> dict[str, Any]:
    """Placement and model repository, as far as they are asked for.

    Args:
        exported: what the export gave; ``file``, ``report`` and ``canvas`` are read.
        config: `placement`, `strict_gpu`, `format` and the keys of Triton.
        progress: told of the steps.

    Returns:
        ``exported`` with ``placement`` (see :meth:`Placement.to_dict`; None unless asked for) and, with format=triton,
        ``repository`` and ``models`` (names of the models written).

    Raises:
        RunError: if ``strict_gpu=true`` does not hold, or something cannot be written.
        ConfigError, ExportError: see :func:`write_repository`.
    """
    path = Path(exported["file"])
    result = {**exported, "placement": _placement(exported, path, config, progress)}
    if config.format != "triton":
        return result
    repository = Path(config.output or path.parent / REPOSITORY)
    progress.message(f"writing {repository}")
    models = write_repository(
        path,
        repository,
        config.name or path.stem,
        max_batch=config.max_batch,
        max_delay_ms=config.max_delay_ms,
        instances=config.instances,
        device=config.device,
        ensemble=config.ensemble,
        conf=max(_ENSEMBLE_CONF, config.conf or 0.0),
        exist_ok=config.exist_ok,
    )
    return {**result, "repository": str(repository), "models": [model.name for model in models]}


def deliver_existing(path: Path, overrides: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The same for a file that exists already, with the overrides laid over its own configuration.

    Raises:
        ExportError: if the file was not written by ``aegl export``.
    """
    runtime = Runtime(path, device="cpu")
    try:
        opset = max(entry.version for entry in onnx.load(str(path)).opset_import if entry.domain in ("", "ai.onnx"))
    except ValueError as error:
        raise ExportError(f"{path}: its graph names no version of ONNX's operators") from error
    report = path.with_name(f"{path.name}.json")
    known = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    exported = {
        "file": str(path),
        "report": str(report) if known else None,
        "opset": opset,
        "canvas": runtime.canvas,
        "megabytes": path.stat().st_size / 2**20,
        "parity": known.get("parity"),
    }
    given = {key: value for key, value in overrides.items() if key != "weights"}
    return deliver(exported, load_config(given, base=runtime.config), progress)


def _placement(exported: Mapping[str, Any], path: Path, config: Config, progress: Progress) -> dict[str, Any] | None:
    if not config.placement and not config.strict_gpu:
        return None
    progress.message("running it with a profiler")
    size = exported["canvas"] or (config.imgsz, config.max_size)
    stride = Runtime(path, device="cpu").meta.stride
    height, width = (-(-side // stride) * stride for side in size)
    measured = (require_gpu if config.strict_gpu else measure_placement)(path, (height, width), device=config.device)
    if exported["report"]:
        add_to_report(Path(exported["report"]), measured)
    return measured.to_dict()
