"""Does training work here? A short run on `shapes_lt`: the loss falls, AP is above 0, both devices detect the same, a
resumed run ends where an unbroken one does; and how long a run on larger JPEG files waits for its data.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from section import TINY, Section, open_section

from aegl.config import load_config
from aegl.engine.auto_batch import with_batch_found
from aegl.engine.build import train
from aegl.engine.callbacks import Callback, LogRecord
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.distributed import World
from aegl.engine.predictor import predict
from aegl.engine.restore import load_torch_backend
from aegl.engine.runs import ARGS_FILE
from aegl.engine.signals import StoppedError
from aegl.engine.splits import open_splits
from aegl.progress import SilentProgress


class Records(Callback):
    """Keeps what is logged; stops the run after a step, if one is given."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.records: list[LogRecord] = []

    def on_log(self, record: LogRecord) -> None:
        self.records.append(record)

    def on_step_end(self, iteration: int) -> None:
        if iteration == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def run(section: Section, folder: Path, name: str, records: Records, **keys: Any) -> dict[str, Any]:
    """A training run of the small model."""
    small: dict[str, Any] = {
        "data": "shapes_lt",
        "model": "mini",
        "device": str(section.device),
        "project": folder / "runs",
        "name": name,
        "report": False,
        "log_every": 10,
        "checkpoint_every": 10_000,
    }
    if section.smoke:
        small |= {**TINY, "log_every": 2, "batch": 4, "workers": 0}
        small["shapes"] = {"classes": 4, "max_instances": 12, "imbalance": 6, "val_per_class": 2, "imgsz": 64}
    return train(load_config({**small, **keys}), SilentProgress(), (records,))


def short_run(section: Section, folder: Path) -> Path:
    """The loss falls, AP is above 0 (not in a smoke run, which is too short)."""
    records = Records()
    steps = 6 if section.smoke else 250
    workers = 0 if section.smoke else 8
    result = run(section, folder, "short", records, iterations=steps, workers=workers)
    losses = [record.loss for record in records.records]
    metrics = result["metrics"]
    section.add(
        f"shapes_lt, {steps} steps from scratch",
        loss_at_first=round(losses[0], 3),
        loss_at_last=round(losses[-1], 3),
        box_AP=round(100 * metrics["box"]["AP"], 2),
        mask_AP=round(100 * metrics["mask"]["AP"], 2),
        seconds=round(result["seconds"], 1),
    )
    if not losses[-1] < losses[0] and not section.smoke:
        section.skip("sanity of training", f"the loss rose from {losses[0]:.3f} to {losses[-1]:.3f}")
    return Path(result["last"])


def same_on_cpu(section: Section, weights: Path) -> None:
    """The same weights on both devices: detections that pair off, and how far their scores and boxes are apart."""
    config = load_config({"cfg": str(weights.parents[1] / ARGS_FILE)})
    image = open_splits(config, World()).val.image_path(0)
    found = []
    for device in ("cpu", section.device):
        backend = load_torch_backend(weights, device=device)
        found.append(next(iter(predict(backend, [image], conf=0.01))))
    a, b = found
    count = min(len(a.scores), len(b.scores))
    order = [np.lexsort((side.labels, -side.scores.round(4)))[:count] for side in found]
    scores = np.abs(a.scores[order[0]] - b.scores[order[1]]).max(initial=0)
    boxes = np.abs(a.boxes_orig[order[0]] - b.boxes_orig[order[1]])
    section.add(
        f"the same weights on cpu and {section.device.type}",
        detections=f"{len(a.scores)} and {len(b.scores)}",
        largest_score_difference=f"{scores:.1e}",
        median_box_difference_px=f"{np.median(boxes) if boxes.size else 0:.1e}",
    )


def resumed(section: Section, folder: Path) -> None:
    """How far weights are apart: of two equal runs (the device's own noise), and of a broken and an unbroken one."""
    keys = {"iterations": 6 if section.smoke else 40, "workers": 0, "val_every": 0}
    finals = []
    for name in ("whole", "again"):
        finals.append(run(section, folder, name, Records(), **keys)["last"])
    with contextlib.suppress(StoppedError):
        run(section, folder, "broken", Records(stop_at=keys["iterations"] // 2), **keys)
    finals.append(run(section, folder, "broken", Records(), resume=True, **keys)["last"])
    whole, again, broken = (load_checkpoint(path).model for path in finals)
    section.add(
        f"{keys['iterations']} steps: largest difference of any weight",
        equal_runs=f"{_difference(whole, again):.1e}",
        resumed_at_half=f"{_difference(whole, broken):.1e}",
    )


def _difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a if a[name].numel())


def waiting_for_data(section: Section, folder: Path) -> None:
    """Share of a run's time in which it waited for the loader, with JPEG files of 640 pixels resized to 800."""
    keys: dict[str, Any] = {
        "model": "mini" if section.smoke else "r50",
        "pretrained": False,
        "data_dir": folder / "jpeg",
    }
    if not section.smoke:
        shapes = {"classes": 20, "max_instances": 60, "imbalance": 6, "val_per_class": 1, "imgsz": 640}
        keys |= {"shapes": shapes, "amp": "bf16", "batch": 8, "workers": 8, "lr": 1e-4, "method": "fbs_aegl"}
        keys |= {"warmup_iterations": 10}
    records = Records()
    run(section, folder, "data", records, iterations=4 if section.smoke else 40, **keys)
    last = records.records[len(records.records) // 2 :]  # without the start of workers and kernels
    section.add(
        f"{keys['model']} on JPEG files through the real loader, {keys.get('workers', 0)} workers",
        images_per_s=round(float(np.mean([record.images_per_second for record in last])), 2),
        waiting_for_data_percent=round(100 * float(np.mean([record.data_share for record in last])), 1),
    )


def found_batch(section: Section) -> None:
    """What `batch=auto` finds at LVIS's image sizes, and how full the GPU was at most while it looked."""
    setting = "batch=auto, r50 bf16"
    if not section.is_cuda:
        section.skip(setting, "it needs a CUDA device")
        return
    shapes = {"classes": 20, "max_instances": 60, "imbalance": 6, "val_per_class": 1, "imgsz": 640}
    config = section.config(data="shapes_lt", shapes=shapes, amp="bf16", batch="auto", max_size=800)
    began = time.perf_counter()
    found = with_batch_found(config, World(device=section.device), SilentProgress())
    total = torch.cuda.get_device_properties(section.device).total_memory
    used = torch.cuda.max_memory_reserved(section.device) / total
    seconds = round(time.perf_counter() - began, 1)
    section.add(setting, batch=found.batch, memory_used_percent=round(100 * used, 1), seconds=seconds)


def main() -> None:
    """Run the section."""
    section = open_section(__doc__)
    torch.backends.cudnn.benchmark = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = None
        with section.attempt("a short training run"):
            weights = short_run(section, folder)
        if weights is not None:
            with section.attempt("agreement of cpu and gpu"):
                same_on_cpu(section, weights)
        with section.attempt("batch=auto"):
            found_batch(section)
        with section.attempt("resumed training"):
            resumed(section, folder)
        with section.attempt("waiting for data"):
            waiting_for_data(section, folder)


if __name__ == "__main__":
    main()
