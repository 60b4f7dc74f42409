"""Trained models as the verbs open them: which file is meant, and what configuration then holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegl.config import Config, load_config
from aegl.config.values import read_mapping
from aegl.progress import Progress

if TYPE_CHECKING:
    from aegl.engine.backend import Backend

Overrides = Mapping[str, Any]
"""Dotted keys to values, as the user gave them."""

_OF_ONE_RUN = (
    "project", "name", "exist_ok", "resume", "weights", "device", "workers", "split", "predictions", "source",
    "save", "save_txt", "save_json", "save_crops", "slice", "slice_overlap",
    "format", "opset", "dynamic", "parity", "to", "read_as", "output", "fraction", "images", "scorer", "boundary",
    "confusions", "host", "port", "threads", "max_batch", "max_delay_ms", "max_pixels", "max_body_mb", "concurrency",
    "timeout_s", "placement", "strict_gpu", "instances", "ensemble", "engines", "batches", "repeats", "ap",
    "masks", "preprocess", "half", "int8", "calibration_images", "calibration_count", "ap_images",
    "figures", "class_order", "measure", "report",
)  # fmt: skip
"""Keys of a training run that say nothing about the model it made."""


@dataclass(frozen=True)
class Trained:
    """A trained model, ready to run, and the configuration that holds for it."""

    weights: Path
    backend: Backend
    config: Config


def open_trained(overrides: Overrides, progress: Progress, *, conf: float | None = None) -> Trained:
    """Open a ``.pt`` or ``.onnx`` file with the overrides laid over its own configuration.

    Args:
        overrides: `weights=`, or the newest run's ``best.pt`` is taken; and what is to hold instead of its own keys.
        progress: told which weights are meant where none are named.
        conf: score threshold where none is given, instead of the model's own.

    Raises:
        CheckpointError, ExportError: if the file is missing or none of aegl's.
        ConfigError: for overrides that do not hold for it.
    """
    request = request_of(overrides)
    weights = find_weights(request, progress)
    given = {key: value for key, value in overrides.items() if key != "weights"}
    if weights.suffix == ".onnx":
        from aegl.export.backend import OnnxBackend

        onnx = OnnxBackend(weights, device=request.device)
        # A graph cannot go below the threshold that is fixed in it.
        config = load_config(given, base=_with_conf(onnx.config, None if conf is None else max(conf, onnx.meta.conf)))
        if "max_det" not in given:  # other data may have another default, which nobody asked for
            config = config.model_copy(update={"max_det": min(config.max_det, onnx.meta.max_det)})
        onnx.require(config)
        return Trained(weights, onnx, config)
    from aegl.engine.backend import TorchBackend
    from aegl.engine.checkpoint import load_checkpoint
    from aegl.engine.distributed import resolve_device
    from aegl.engine.restore import rebuild_model

    device = resolve_device(request.device)
    checkpoint = load_checkpoint(weights)
    config = load_config(given, base=_with_conf(of_the_model(checkpoint.config), conf))
    model, meta = rebuild_model(checkpoint, config)
    return Trained(weights, TorchBackend(model, meta, device), config)


def request_of(overrides: Overrides) -> Config:
    """What is asked for, as against of which model: it is needed before the model's own configuration is known.

    Unknown keys are refused here already: a misspelt `weights` must not end in another model's answer.
    """
    path = overrides.get("cfg")
    content = {} if path is None else read_mapping(Path(str(path)), f"cfg={path}")
    asked = {key: value for key, value in content.items() if key in _OF_ONE_RUN}
    for key, value in overrides.items():
        if key in _OF_ONE_RUN or key.partition(".")[0] not in {*Config.model_fields, "cfg"}:
            asked[key] = value
    return load_config(asked)


def find_weights(request: Config, progress: Progress) -> Path:
    """`weights=`, or the newest run's ``best.pt``; says which in the latter case."""
    from aegl.engine.runs import newest_weights

    if request.weights is not None:
        return Path(request.weights)
    weights = newest_weights(request.project)
    progress.message(f"weights={weights} (the newest run's)")
    return weights


def of_the_model(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's configuration says something about the model that it made."""
    return {key: value for key, value in config.items() if key not in _OF_ONE_RUN}


def _with_conf(config: Mapping[str, Any], conf: float | None) -> dict[str, Any]:
    return {**config} if conf is None else {**config, "conf": conf}
