"""`aegl <verb> --help`, made from the schema."""

from __future__ import annotations

from collections.abc import Iterator

from aegl.config.fields import keys
from aegl_cli.keyvalue import FLAGS
from aegl_cli.render import listing

COMMON = ("data", "weights", "project", "name", "exist_ok", "device", "workers", "cfg")
OF_VERB: dict[str, tuple[str, ...]] = {
    "train": (
        "data", "model", "method", "schedule", "recipe", "epochs", "iterations", "batch", "imgsz", "lr", "sampler",
        "loss", "box", "bands", "weights", "backbone_weights", "pretrained", "resume", "amp", "ema", "val_every",
        "patience", "loggers", "callbacks", "checkpoint_every", "seed", "device", "workers", "project", "name",
        "exist_ok",
    ),
    "val": (*COMMON[:-1], "split", "protocol", "predictions", "conf", "iou", "max_det", "imgsz"),
    "predict": (
        "source", *COMMON[1:-1], "conf", "iou", "max_det", "imgsz", "save", "save_txt", "save_json",
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
USAGE = {
    "tune": "aegl tune data=<data> space.<key>=<range> [space.<key>=<range> ...] [key=value ...]\n"
    "A range is low..high, low..high:log, a|b|c, or auto (all that the key allows); docs/tuning.md has more.",
    "compare": "aegl compare methods=a,b+sampler=rfs | recipes=a,b | entries=file.yaml | runs=a,b [key=value ...]",
    "data": "aegl data check|stats|advise|download|convert|split|coco_lt|segments data=<name, YAML, folder or JSON>",
    "report": "aegl report runs/train [runs/train2 ...]",
    "plot": "aegl plot runs/train [runs/train2 ...] | data=a,b [figures=...] [key=value ...]",
    "methods": "aegl methods [name]",
    "cfg": "aegl cfg [key=value ...]",
}


def verb_help(verb: str, summary: str) -> str:
    """The help text of a verb."""
    lines = [f"Usage: {USAGE.get(verb, f'aegl {verb} key=value ... (or --key value)')}", "", summary]
    entries = [entry for key in OF_VERB[verb] for entry in _entries(key)]
    if entries:
        lines += ["", "Keys that matter here (`aegl cfg` shows all):"]
        lines.append(listing([[f"  {name}", text] for name, text in entries]))
    return "\n".join([*lines, "", listing([[f"  {flag}", text] for flag, text in FLAGS.items()])])


def _entries(name: str) -> Iterator[tuple[str, str]]:
    """A key, or all keys of a section."""
    for key in keys().values():
        if key.name == name or key.name.startswith(f"{name}."):
            yield key.name, f"{key.help} ({key.allowed}) default {key.default}"
    if name == "loss":
        yield "loss.<option>", "Hyper-parameters of the loss; `aegl methods <name>` lists them."
