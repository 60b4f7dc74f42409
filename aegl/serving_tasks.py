"""The verb `serve`; see :mod:`aegl.tasks`. It needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aegl.config import Config, load_config
from aegl.errors import ConfigError, ExportError, RunError
from aegl.progress import Progress
from aegl.trained import Overrides, find_weights


def serve(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Serve an exported model over HTTP until SIGTERM or SIGINT.

    Returns:
        ``weights``, and ``stopped_by``: name of the signal.
    """
    try:
        from aegl.serving.server import serve as run_server
        from aegl.serving.settings import Settings
    except ModuleNotFoundError as error:
        raise RunError(f"`aegl serve` needs {error.name}: pip install 'aegl[serve]'") from error
    from aegl.runtime import Runtime

    config = load_config(overrides)
    weights = _exported(config, progress)
    runtime = Runtime(weights, device=config.device, threads=config.threads)
    if config.conf is not None and config.conf < runtime.meta.conf:
        raise ExportError(f"conf={config.conf}: {weights} was exported with conf={runtime.meta.conf}; export it anew")
    settings = Settings(
        max_batch=config.max_batch,
        max_delay_ms=config.max_delay_ms,
        max_pixels=config.max_pixels,
        max_body_mb=config.max_body_mb,
        concurrency=config.concurrency,
        timeout_s=config.timeout_s,
        **({} if config.conf is None else {"default_conf": config.conf}),
    )
    progress.message(f"warming up {weights} on {runtime.provider}")
    signal = run_server(
        runtime,
        settings,
        host=config.host,
        port=config.port,
        started=lambda url: progress.message(f"serving {weights.stem} at {url} (Ctrl-C ends it)"),
    )
    return {"weights": str(weights), "stopped_by": signal.name if signal else None}


def _exported(config: Config, progress: Progress) -> Path:
    """`weights=`, or the file exported from the newest run."""
    weights = find_weights(config, progress)
    if weights.suffix == ".onnx":
        return weights
    beside = weights.with_suffix(".onnx")
    if config.weights is None and beside.is_file():
        return beside
    raise ConfigError(f"weights={weights}: `aegl serve` takes an ONNX file; make one: aegl export weights={weights}")
