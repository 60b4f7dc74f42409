"""How long writing a checkpoint holds up training, in the foreground and in the background.

A step sleeps, as a CPU does that waits for its GPU; the model is as large as asked for. Its optimiser has a momentum,
and there is an average, so a checkpoint is three times as large. Figures go to standard output as one JSON object.

    python benchmarks/bench_checkpoint.py --megabytes 180 --folder /path/on/the/disk
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn, optim

from aegl.engine.checkpoint import load_checkpoint, save_checkpoint, snapshot
from aegl.engine.distributed import World
from aegl.engine.ema import ModelEma
from aegl.engine.plan import TrainPlan
from aegl.engine.saver import Saver
from aegl.engine.seal import seal_holds
from aegl.engine.stepper import Stepper
from aegl.engine.weights import WeightsFolder
from aegl.longtail.statistics import ClassStatistics
from aegl.metadata import ModelMeta

LAYER_MB = 4
STATISTICS = ClassStatistics(np.array([1]), np.array([1]), 1, np.array([0]))
META = ModelMeta(
    names=("a",),
    category_ids=(1,),
    band_names=("r",),
    class_band=(0,),
    model="bench",
    method="bench",
    data="bench",
    protocol="coco",
    imgsz=32,
    max_size=32,
    stride=32,
    pixel_mean=(0.0, 0.0, 0.0),
    pixel_std=(1.0, 1.0, 1.0),
    conf=0.05,
    iou=0.5,
    max_det=1,
    mask_size=1,
)


def make_stepper(megabytes: int) -> Stepper:
    """Linear layers of 4 MB each, with momentum and average."""
    model = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(megabytes // LAYER_MB)))
    optimizer = optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return Stepper(model, optimizer, world=World(), ema=ModelEma(model, 0.9))


def stalls(saver: Saver, *, saves: int, every: int, step_s: float, in_background: bool) -> list[float]:
    """Seconds that each save took from the loop, the slow-down of the steps beside the writing included."""
    found, iteration = [], 0
    for _ in range(saves):
        started = time.perf_counter()
        saver.save(iteration, metrics={}, validated=-1, best=None, is_best=False)
        if not in_background:
            saver.finish()
        for _ in range(every):
            time.sleep(step_s)
            saver.poll()
            iteration += 1
        found.append(time.perf_counter() - started - every * step_s)
    saver.finish()
    return found


def seconds(function: Any) -> float:
    """Time of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures; files are written into ``folder``."""
    stepper = make_stepper(arguments.megabytes)
    weights = WeightsFolder(folder, meta=META, statistics=STATISTICS, config={})
    result: dict[str, Any] = {"model_mb": arguments.megabytes, "step_s": arguments.step_s, "every": arguments.every}
    plan = TrainPlan(iterations=1, batch=1)
    for name, in_background in (("foreground", False), ("background", True)):
        saver = Saver(stepper, weights, World(), plan, lambda iteration, path: None)
        rhythm = {"saves": arguments.saves, "every": arguments.every, "step_s": arguments.step_s}
        found = stalls(saver, **rhythm, in_background=in_background)
        saver.close()
        result[f"{name}_stall_s"] = {"median": float(np.median(found)), "largest": max(found)}
    checkpoint = load_checkpoint(weights.last)
    result["file_mb"] = weights.last.stat().st_size / 1e6
    result["copy_s"] = seconds(lambda: snapshot((stepper.model.state_dict(), stepper.state_dict())))
    result["write_s"] = seconds(lambda: save_checkpoint(checkpoint, folder / "again.pt"))
    result["read_s"] = seconds(lambda: load_checkpoint(weights.last))
    result["checksum_s"] = seconds(lambda: seal_holds(weights.last))
    return result


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=180, help="size of the model's weights")
    parser.add_argument("--saves", type=int, default=5, help="checkpoints of each kind")
    parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--step-s", type=float, default=0.05, help="seconds of a step")
    parser.add_argument("--folder", type=Path, help="where the files are written; default: the temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        print(json.dumps(measure(folder, arguments), indent=1))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
