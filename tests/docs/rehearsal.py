"""What the blocks of the pages are run with instead of what they name, and what cannot be run: every table of it.

A page's commands are run as they stand, except that data, models and lengths of training are small ones. What a table
below does not change is run to the letter.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import Any

from .pages import ROOT

PYTHON, REPOSITORY = shlex.quote(sys.executable), shlex.quote(str(ROOT))

NOT_RUN = {
    r"(\S+/)?pip install ": "downloads packages; that the extras exist is checked",
    r"aegl data download ": "downloads 27 GB",
    r"FROM ": "builds a container image",
    r"docker run ": "needs docker, a GPU and Triton's image",
    r"curl .*localhost:8000/v2/models/birds": "asks a Triton server",
    r"curl .*localhost:8002/metrics": "asks a Triton server",
    r"(?s:.*)triton\.InferenceServerClient\(\"localhost:8000\"\)": "asks a Triton server",
    r"kubectl ": "needs a Kubernetes cluster",
    r"helm ": "needs a Kubernetes cluster",
}
"""How commands and programs begin that cannot be run on a CPU without a network, and why. All others are run."""

GIVEN = {
    "docs/comparing.md": ("runs/train", "runs/train2", "runs/train3"),
    "docs/export.md": ("runs/train",),
    "docs/figures.md": ("runs/train", "runs/train2"),
    "docs/robustness.md": ("runs/my_run",),
    "docs/runtime.md": ("best.onnx",),
    "docs/serving.md": ("best.pt",),
    "docs/triton.md": ("best.pt",),
}
"""What the reader of a page has made before, beside data and pictures. ``runs/my_run`` was interrupted."""

REPLACED = [
    # data and pictures that lie elsewhere
    (r"(?<=data_dir=)/data\b", "datasets"),
    (r"(?<=project=)/(?=(shared/)?runs\b)", "mounted/"),
    (r"(?<=weights=)/model/", ""),
    (r"/tmp/s2000\b", "s2000"),
    # what a machine with a GPU has, and one without has not
    (r"(device=\"?)cuda\b", r"\1cpu"),
    (r"\bstrict_gpu=true\b", "placement=true"),  # the same report, without insisting
    # programs of other environments, and packages that the development environment lacks
    (r"<venv>/bin/python|\bserving/bin/python", PYTHON),
    (r"-m venv serving", "-m venv --without-pip serving"),  # pip would be for what is not installed
    (r" faster-coco-eval\b", ""),
    (r"\bloggers=tensorboard,mlflow\b", "loggers=tensorboard"),
    # programs of the repository; what make does is read, not done: tests that test everything would never end
    (r"^make ", f"make --dry-run --directory {REPOSITORY} "),
    (r"\bpython benchmarks/", f"{PYTHON} {REPOSITORY}/benchmarks/"),
    # variants of one command, each of which a reader runs as the first
    (r"\bformat=triton\b", "format=triton exist_ok=true"),
    (r"^curl ", "curl --fail --silent --show-error "),  # an answer that says what is wrong is not the one hoped for
    # smaller
    (r"--images 2000\b", "--images 10"),
    (r"--processes 1 8 --per-process 2 --steps 200", "--processes 1 --per-process 2 --steps 2"),
    (r"(?<=data=lvis_v1 )model=swin_b amp=bf16 workers=8$", "model=mini amp=bf16 workers=0 imgsz=64 train_imgsz=64"),
    (r"\bbatches=1,4\b", "batches=1"),
    (r"\b(2, 3), 800, 1344\b", r"\1, 64, 64"),
    # so that even a model that knows nothing finds something
    (r"\bconf=0\.\d+", "conf=0.0001"),
]
"""Patterns in commands and programs, and what stands there when they are run."""

DATA = {
    "shapes.classes": 6,
    "shapes.max_instances": 12,
    "shapes.imbalance": 6,
    "shapes.val_per_class": 2,
    "shapes.imgsz": 64,
}
"""Added where ``data=shapes_lt``."""

TRAINING: dict[str, Any] = {
    "model": "mini",
    "iterations": 2,
    "warmup_iterations": 1,
    "batch": 4,
    "workers": 0,
    "imgsz": 64,
    "max_size": 128,
    "train_imgsz": 64,
    "neck.first_level": 4,
    "device": "cpu",
    "report": "false",
}
"""Keys of what trains, whatever the command says, unless it goes on with a run."""

SHORTER = {"epochs": 0.9, "val_every": 1}
"""Values of keys where a command has them."""

OTHERS: dict[str, dict[str, Any]] = {
    "val": {"report": "false"},  # that of docs/figures.md shows that reports are written
    "predict": {"conf": 0.0001},
    "tune": {"trials": 2},
    "serve": {"port": 0, "device": "cpu", "threads": 1},
    "benchmark": {"engines": "onnx-cpu", "repeats": 2},  # compiling takes a minute, and a process with PyTorch seconds
}
"""Keys of other verbs, whatever the command says."""

CHARTS = "counts,class_ap"
"""What ``aegl plot`` draws of runs where a command does not say: drawing all takes many seconds."""

INTERRUPTION = """
import os, signal
from aegl.engine.callbacks import Callback

class Interruption(Callback):
    def on_step_end(self, iteration):
        if iteration == 1:
            os.kill(os.getpid(), signal.SIGTERM)
"""
"""A callback that ends a run after its first step, as a supervisor might: what ``resume=true`` goes on with."""


def reason_not_to_run(text: str) -> str | None:
    """Why a command or program is not run, or None."""
    return next((reason for beginning, reason in NOT_RUN.items() if re.match(beginning, text)), None)


def rewritten(text: str, address: str | None = None) -> str:
    """A command or program, small and at home here; ``address``: ``host:port`` of the server that was started."""
    for pattern, replacement in REPLACED:
        text = re.sub(pattern, replacement, text)
    return re.sub(r"\b(127\.0\.0\.1|localhost):8000\b", address, text) if address else text


def shortened(words: list[str]) -> list[str]:
    """The words of an ``aegl`` command, its verb first, with the keys that make it short."""
    verb = words[0]
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words[1:]}
    keys = dict(OTHERS.get(verb, {}))
    goes_on = given.get("resume") == "true"  # with its own configuration
    if verb in ("train", "tune", "compare") and "runs" not in given and not goes_on:
        keys |= TRAINING
        if verb == "compare":
            keys["seeds"] = min(2, int(given.get("seeds", 3)))
    if "epochs" in given:
        keys.pop("iterations", None)
    if given.get("data") == "shapes_lt":
        keys |= DATA
    if verb == "plot" and "figures" not in given:
        keys["figures"] = CHARTS
    keys |= {key: value for key, value in SHORTER.items() if key in given}
    return [*(word for word in words if word.partition("=")[0] not in keys), *(f"{k}={v}" for k, v in keys.items())]


def shortened_program(text: str) -> str:
    """A Python program with the keys that make its training short."""
    keys = {**TRAINING, **DATA}
    del keys["model"]
    for key in ("iterations", "warmup_iterations"):
        text = re.sub(rf"\b{key}=\d+", f"{key}={keys[key]}", text)
    return text.replace('Detector("mini"', f'Detector("mini", **{keys!r}')


def command_of_torchrun(words: list[str]) -> list[str]:
    """The ``aegl`` command that torchrun is asked to start, its options read by torchrun's own parser.

    It is run in one process: that several work together is what ``tests/engine/test_torchrun.py`` is for.

    Raises:
        SystemExit: where torchrun does not take them.
    """
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(words)
    assert options.module and options.training_script == "aegl_cli", shlex.join(words)
    return list(options.training_script_args)
