"""Which keys a verb reads, and which it would ignore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aegl.config.render import grouped_keys
from aegl.config.schema import GROUPS
from aegl.errors import ConfigError

_COMMON = ("data", "weights", "project", "name", "exist_ok", "device", "workers")
OF_VERB: dict[str, tuple[str, ...]] = {
    "train": (
        "data", "model", "method", "schedule", "recipe", "epochs", "iterations", "batch", "imgsz", "lr", "sampler",
        "loss", "box", "bands", "weights", "backbone_weights", "pretrained", "resume", "amp", "ema", "val_every",
        "patience", "loggers", "callbacks", "checkpoint_every", "seed", "device", "workers", "project", "name",
        "exist_ok",
    ),
    "val": (*_COMMON, "split", "protocol", "predictions", "conf", "iou", "max_det", "imgsz"),
    "predict": (
        "source", *_COMMON[1:], "conf", "iou", "max_det", "imgsz", "save", "save_txt", "save_json",
        "save_crops", "slice", "slice_overlap",
    ),
    "export": (
        "weights", "format", "opset", "dynamic", "imgsz", "max_size", "conf", "iou", "max_det", "parity",
        "masks", "preprocess", "half", "int8", "calibration_images", "calibration_count", "ap_images",
        "placement", "strict_gpu", "output", "name", "exist_ok", "device", "max_batch", "max_delay_ms", "instances",
        "ensemble",
    ),
    "serve": (
        "weights", "host", "port", "device", "threads", "conf", "max_batch", "max_delay_ms", "max_pixels",
        "max_body_mb", "concurrency", "timeout_s",
    ),
    "benchmark": (
        "weights", "engines", "batches", "repeats", "ap", "split", "data", "device", "placement", "strict_gpu", "imgsz",
        "max_size", "dynamic", "opset", "conf", "iou", "max_det",
    ),
    "data": (
        "data", "data_dir", "to", "output", "read_as", "fraction", "seed", "images", "per_class", "sampler",
        "rfs_threshold", "rfs_power", "rfs_rounding", "empty_images", "bands", "shapes",
    ),
    "compare": (
        "methods", "recipes", "entries", "runs", "seeds", "seed", "data", "model", "schedule", "epochs", "iterations",
        "batch", "sampler", "weights", "device", "workers", "project", "name",
    ),
    "tune": (
        "space", "trials", "objective", "prune", "startup_trials", "seed", "data", "model", "method", "schedule",
        "epochs", "iterations", "batch", "val_every", "patience", "device", "workers", "project", "name",
    ),
    "plot": ("runs", "data", "figures", "class_order", "measure", "output", "rfs_threshold", "rfs_power", "bands"),
    "report": ("runs", "output"),
    "cfg": (),
    "models": (),
    "methods": (),
    "checks": (),
}  # fmt: skip
"""The keys that matter most to each verb, for its help. Some read others too."""
_READERS = {
    GROUPS["epochs"]: ("train", "compare", "tune"),
    GROUPS["source"]: ("predict",),
    GROUPS["format"]: ("export",),
    GROUPS["engines"]: ("benchmark",),
    GROUPS["host"]: ("serve",),
    GROUPS["to"]: ("data",),
    GROUPS["methods"]: ("compare",),
    GROUPS["space"]: ("tune",),
}
"""Verbs that read groups of keys; the other groups are for all. A key of :data:`OF_VERB` is read besides."""


def refuse_unread(verb: str, given: Mapping[str, Any]) -> None:
    """Of what a verb is told nothing shall be without effect.

    Args:
        verb: the verb.
        given: keys, dotted or not, to values; those that the schema does not know are not looked at.

    Raises:
        ConfigError: for a key that the verb does not read; names the verbs that do.
    """
    readers = {_top(name): _READERS[title] for title, names in grouped_keys() if title in _READERS for name in names}
    for name, value in given.items():
        key = _top(name)
        if key not in readers or not OF_VERB[verb]:
            continue
        verbs = [each for each, own in OF_VERB.items() if each in readers[key] or key in own]
        if verb not in verbs:
            raise ConfigError(
                f"{name}={value}: is no key of aegl {verb}, but of {', '.join(verbs)}; leave it out"
                f" (aegl {verb} --help lists the keys that matter to it)"
            )


def _top(name: str) -> str:
    """A section, or a key of none."""
    return name.partition(".")[0]
