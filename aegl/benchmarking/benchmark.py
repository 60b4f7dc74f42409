"""`aegl benchmark`: what a trained model costs in every engine that can run it, and what it scores there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aegl.benchmarking.engines import ENGINES, Spec
from aegl.benchmarking.measure import Row, measure
from aegl.config import Config, load_config
from aegl.config.hints import did_you_mean
from aegl.errors import ConfigError, RunError
from aegl.metadata import ModelMeta
from aegl.progress import Progress
from aegl.trained import Overrides, find_weights, of_the_model, request_of

Verb = Callable[[dict[str, Any], Progress], dict[str, Any]]
"""Another verb of :mod:`aegl.tasks`."""
_NO_CHECKPOINT = "an ONNX file was given; PyTorch needs the .pt it was made from"


def benchmark(overrides: Overrides, progress: Progress, *, export: Verb, val: Verb) -> dict[str, Any]:
    """Measure PyTorch, compiled PyTorch and ONNX Runtime on the CPU and on CUDA, at the batch sizes of ``batches=``.

    A checkpoint is exported for it as ``aegl export`` would with the same keys, beside nothing: the file goes again. A
    call takes images in main memory and gives detections in main memory, in every engine.

    Args:
        overrides: dotted keys to values.
        progress: told of every step.
        export: writes the ONNX file.
        val: gives the AP.

    Returns:
        ``weights``, ``size`` (height and width of the images), ``threads``, ``repeats``, ``rows`` (see :class:`Row`),
        ``ap`` (by engine, box and mask AP in [0, 1]; None unless asked for) and ``placement`` (see
        :meth:`aegl.export.placement.Placement.to_dict`; None unless asked for).

    Raises:
        ConfigError: for keys that do not hold.
        RunError: if no engine could be measured, or ``strict_gpu=true`` does not hold.
    """
    request = request_of(overrides)
    engines = _engines(request)
    weights = find_weights(request, progress)
    with tempfile.TemporaryDirectory(prefix="aegl-benchmark-") as folder:
        onnx_file = weights
        if weights.suffix != ".onnx" and (request.strict_gpu or request.placement or any(map(_is_onnx, engines))):
            onnx_file = _exported(overrides, weights, Path(folder), export, progress)
        config, size = _configured(overrides, weights, onnx_file)
        placement = _placement(request, onnx_file, size)
        threads = _threads()
        possible = [engine for engine in engines if _is_onnx(engine) or weights.suffix != ".onnx"]
        specs = [
            Spec(
                engine,
                str(onnx_file if _is_onnx(engine) else weights),
                config.model_dump(mode="json"),
                _device(engine, request.device),
                size,
                batch,
                threads,
            )
            for batch in request.batches
            for engine in possible
        ]
        rows = measure(specs, repeats=request.repeats, progress=progress)
        rows += [
            Row(engine, "-", batch, skipped=_NO_CHECKPOINT)
            for batch in request.batches
            for engine in engines
            if engine not in possible
        ]
        _require_one(rows)
        measured = {row.engine for row in rows if row.skipped is None}
        files = {engine: str(onnx_file if _is_onnx(engine) else weights) for engine in engines if engine in measured}
        ap = _ap(overrides, request, files, Path(folder), val, progress) if request.ap else None
    return {
        "weights": str(weights),
        "size": list(size),
        "threads": threads,
        "repeats": request.repeats,
        "rows": [asdict(row) for row in rows],
        "ap": ap,
        "placement": placement,
    }


def _is_onnx(engine: str) -> bool:
    return engine.startswith("onnx")


def _engines(request: Config) -> list[str]:
    if any(batch < 1 for batch in request.batches):
        raise ConfigError(f"batches={request.batches}: every batch size must be 1 or more")
    asked = request.engines or [name for name in ENGINES if name != "onnx-cuda" or request.device != "cpu"]
    for name in asked:
        if name not in ENGINES:
            raise ConfigError(
                f"engines={name}: no such engine{did_you_mean(name, ENGINES)}; engines are {', '.join(ENGINES)}"
            )
    return list(dict.fromkeys(asked))


def _exported(overrides: Overrides, weights: Path, folder: Path, export: Verb, progress: Progress) -> Path:
    """The model as ONNX, in a folder of its own: what lies beside the weights may be older, and is not touched."""
    from aegl.engine.checkpoint import load_checkpoint

    load_checkpoint(weights)  # complains of the file under its own name
    link = folder / weights.name
    link.symlink_to(weights.resolve())
    changes = {"weights": str(link), "format": "onnx", "parity": False, "placement": False, "strict_gpu": False}
    return Path(export({**overrides, **changes}, progress)["file"])


def _configured(overrides: Overrides, weights: Path, onnx_file: Path) -> tuple[Config, tuple[int, int]]:
    """The model's configuration with the overrides, and the size of the images: the file's own where it has one."""
    from aegl.engine.checkpoint import load_checkpoint

    given = {key: value for key, value in overrides.items() if key != "weights"}
    canvas = None
    if onnx_file.suffix == ".onnx":
        from aegl.runtime import Runtime

        runtime = Runtime(onnx_file, device="cpu")
        meta, canvas, base = runtime.meta, runtime.canvas, runtime.config
    if weights.suffix != ".onnx":
        checkpoint = load_checkpoint(weights)
        meta, base = checkpoint.meta, of_the_model(checkpoint.config)
    config = load_config(given, base=base)
    return config, canvas or _padded(config, meta)


def _padded(config: Config, meta: ModelMeta) -> tuple[int, int]:
    height, width = (-(-side // meta.stride) * meta.stride for side in (config.imgsz, config.max_size))
    return height, width


def _placement(request: Config, onnx_file: Path, size: tuple[int, int]) -> dict[str, Any] | None:
    from aegl.export.placement import measure_placement, require_gpu

    if request.strict_gpu:
        return require_gpu(onnx_file, size, device=request.device).to_dict()
    return measure_placement(onnx_file, size, device=request.device).to_dict() if request.placement else None


def _device(engine: str, asked: str) -> str:
    if engine == "onnx-cpu":
        return "cpu"
    if engine == "onnx-cuda":
        return asked if asked.startswith("cuda") else "cuda"
    from aegl.engine.distributed import resolve_device

    return str(resolve_device(asked))


def _threads() -> int:
    """As PyTorch would choose, for all engines: it heeds OMP_NUM_THREADS, which ONNX Runtime does not."""
    import torch

    return torch.get_num_threads()


def _require_one(rows: Sequence[Row]) -> None:
    if all(row.skipped is not None for row in rows):
        reasons = dict.fromkeys(f"{row.engine}: {row.skipped}" for row in rows)
        raise RunError("nothing could be measured: " + "; ".join(reasons))


def _ap(
    overrides: Overrides, request: Config, files: dict[str, str], folder: Path, val: Verb, progress: Progress
) -> dict[str, Any]:
    """By engine, what it scores; compiled PyTorch computes what PyTorch does and is not evaluated on its own."""
    found = {}
    for engine, file in files.items():
        if engine != "compiled":
            progress.message(f"evaluating {engine} on the {request.split} split")
            place = {"project": str(folder / "runs"), "name": engine, "device": _device(engine, request.device)}
            summary = val({**overrides, "weights": file, **place}, progress)
            kinds = {kind: summary[kind]["AP"] for kind in ("box", "mask") if summary.get(kind) is not None}
            found[engine] = {**kinds, "split": summary["split"], "protocol": summary["protocol"]}
    return found
