"""One training step and one inference beside torchvision's Mask R-CNN, and how the cost of ours grows.

    python benchmarks/bench_step.py                          # a training step at 1203 classes, 2 images of 320 px
    python benchmarks/bench_step.py --classes 80
    python benchmarks/bench_step.py --what infer --height 800 --width 1333 --batch 1
    python benchmarks/bench_step.py --what growth            # against classes, objects and image size, ours alone
    python benchmarks/bench_step.py --what profile           # the operators that take longest

Both sides: ResNet-50 with FPN, frozen batch norm, the stem and the first stage not trained, 2000 proposals before NMS
and 1000 after, 512 regions an image, RoIAlign that adapts its samples, softmax cross-entropy, SGD with momentum and
weight decay, the same images and objects. torchvision gets the masks of full size that it asks its users for. Each side
is a process of its own; they take turns, figures are medians. The tensors of a call are what the allocator holds at
most beyond what it held before it, that is without weights and momentum; the growth of memory is that of the process
(on a GPU: of the allocator) from before the first call to the largest moment.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from memory import Growth, peak_bytes
from synthetic import long_tail, random_batch

THRESHOLD, DETECTIONS = 1e-4, 300
FIGURES = {
    "seconds": "seconds",
    "peak_mb": "tensors of one call at most, MiB",
    "growth_mb": "growth of memory, momentum included, MiB",
}
GROWTH: dict[str, Sequence[dict[str, int]]] = {
    "classes": [{"classes": n} for n in (80, 1203, 10_000)],
    "objects an image": [{"objects": n} for n in (1, 10, 30, 100, 300)],
    "side in pixels": [{"height": n, "width": n} for n in (224, 320, 448, 640)],
}

Call = Callable[[], Any]


def ours(options: argparse.Namespace) -> Call:
    """A step, or an inference, of aegl."""
    from aegl.config import load_config
    from aegl.engine.speed import place
    from aegl.models.factory import build_model

    keys = {
        "model": options.model, "method": options.method, "pretrained": False, "backbone.norm": "frozen",
        "conf": THRESHOLD, "max_det": DETECTIONS, "amp": options.amp,
        "optimizer": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "norm_decay": True,
        "ema": False, "clip_grad": 0,
    }  # fmt: skip
    config = load_config({**keys, **dict(key.split("=", 1) for key in options.keys)})
    torch.manual_seed(0)
    model = place(build_model(config, long_tail(options.classes)), torch.device(options.device))
    batch = random_batch(
        options.classes,
        options.batch,
        options.objects,
        (options.height, options.width),
        torch.Generator().manual_seed(0),
    )
    if options.what == "infer":
        model.eval()
        return torch.inference_mode()(lambda: model(batch.images.to(options.device)))
    from aegl.engine.assembly import stepper_of
    from aegl.engine.distributed import World

    stepper = stepper_of(config, model.train(), World(device=torch.device(options.device)))
    return lambda: stepper.step([batch], 1e-4)


def theirs(options: argparse.Namespace) -> Call:
    """The same of torchvision."""
    from torchvision.models import resnet50
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

    torch.manual_seed(0)
    backbone = _resnet_fpn_extractor(resnet50(weights=None, norm_layer=FrozenBatchNorm2d), 3)
    size = {"min_size": min(options.height, options.width), "max_size": max(options.height, options.width)}
    levels = ["0", "1", "2", "3"]
    model = MaskRCNN(
        backbone, options.classes + 1, rpn_post_nms_top_n_train=1000, box_score_thresh=THRESHOLD,
        box_detections_per_img=DETECTIONS, box_roi_pool=MultiScaleRoIAlign(levels, 7, 0),
        mask_roi_pool=MultiScaleRoIAlign(levels, 14, 0), **size,
    ).to(options.device)  # fmt: skip
    rng = torch.Generator().manual_seed(0)
    batch = random_batch(options.classes, options.batch, options.objects, (options.height, options.width), rng)
    images = [image.float().div(255).to(options.device) for image in batch.images]
    if options.what == "infer":
        model.eval()
        return torch.inference_mode()(lambda: model(images))
    assert batch.targets is not None
    boxes, labels = batch.targets.boxes.to(options.device), batch.targets.labels.to(options.device)
    targets = [
        {"boxes": box, "labels": label + 1, "masks": _full_masks(box, options)}
        for box, label in zip(boxes, labels, strict=True)
    ]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-4, 0.9, weight_decay=1e-4)
    kind = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[options.amp]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(options.device, kind, enabled=options.amp != "none"):
            loss = sum(model(images, targets).values())
        loss.backward()
        optimizer.step()

    model.train()
    return step


def _full_masks(boxes: torch.Tensor, options: argparse.Namespace) -> torch.Tensor:
    """``[N, H, W]`` uint8: each box filled."""
    rows = torch.arange(options.height, device=boxes.device)[None, :, None]
    columns = torch.arange(options.width, device=boxes.device)[None, None, :]
    left, top, right, bottom = boxes[:, :, None, None].unbind(1)
    return ((columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)).to(torch.uint8)


def seconds(call: Call, device: str) -> float:
    """How long a call takes."""
    if device != "cpu":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def work(side: str, options: argparse.Namespace) -> None:
    """Be one side: answer each word on standard input with a figure."""
    torch.set_num_threads(options.threads)
    call = (ours if side == "aegl" else theirs)(options)
    growth = Growth(options.device)
    answers: dict[str, Callable[[], float]] = {
        "seconds": lambda: seconds(call, options.device),
        "growth": growth.mb,
        "peak": lambda: peak_bytes(call, options.device) / 2**20,
    }
    for line in sys.stdin:
        sys.stdout.write(f"{answers[line.strip()]()}\n")
        sys.stdout.flush()


class Side:
    """A process that is one side."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        command = [sys.executable, __file__, *arguments, "--side", name]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MALLOC_ARENA_MAX": "2"},
        )
        self.seconds: list[float] = []

    def run(self) -> float:
        """One call."""
        self.seconds.append(self._ask("seconds"))
        return self.seconds[-1]

    def end(self) -> dict[str, float]:
        """The memory it took, in MiB; the process ends."""
        # Growth first: the profiler that tells the peak takes memory too.
        figures = {f"{name}_mb": self._ask(name) for name in ("growth", "peak")}
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        return figures

    def _ask(self, line: str) -> float:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("a side has ended; what it says stands above")
        return float(answer)


def measured(names: Sequence[str], arguments: Sequence[str], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds (the first call left out) and memory of each side, taking turns."""
    sides = {name: Side(name, arguments) for name in names}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            print(f"  {name}{' (warming up)' if not repeat else ''}: {side.run():.3f} s", file=sys.stderr, flush=True)
    return {name: {"seconds": statistics.median(side.seconds[1:]), **side.end()} for name, side in sides.items()}


def compare(options: argparse.Namespace, arguments: Sequence[str]) -> dict[str, Any]:
    """Ours beside theirs."""
    found = measured(["torchvision", "aegl"], arguments, options.repeats)
    base, own = found["torchvision"], found["aegl"]
    what = "training step" if options.what == "train" else "inference"
    print(
        f"\n{what}, {options.batch} x {options.height}x{options.width}, {options.classes} classes, {options.objects} "
        f"objects an image, {options.device}, amp {options.amp}, {options.threads} threads\n"
    )
    print("| | torchvision | aegl | ratio |\n|---|---:|---:|---:|")
    ratios = {key: own[key] / max(base[key], 1e-9) for key in FIGURES}
    for key, label in FIGURES.items():
        print(f"| {label} | {base[key]:.3g} | {own[key]:.3g} | {ratios[key]:.2f} |")
    rate = options.batch / own["seconds"]
    print(f"\naegl: {rate:.2f} images per second")
    return {**found, "ratios": ratios}


def growth(options: argparse.Namespace, arguments: Sequence[str]) -> dict[str, Any]:
    """The step of ours against what makes it larger, one thing at a time."""
    found: dict[str, Any] = {}
    for title, steps in GROWTH.items():
        print(f"\n| {title} | seconds | of the first | MiB |\n|---:|---:|---:|---:|")
        for changes in steps:
            changed = [f"--{name}={value}" for name, value in changes.items()]
            row = measured(["aegl"], [*arguments, "--what", "train", *changed], options.repeats)["aegl"]
            value = next(iter(changes.values()))
            first = found.setdefault(title, {value: row})[next(iter(found[title]))]
            found[title][value] = row
            ratio = row["seconds"] / first["seconds"]
            print(f"| {value} | {row['seconds']:.3f} | {ratio:.2f} | {row['growth_mb']:.0f} |", flush=True)
    return found


def profile(options: argparse.Namespace) -> dict[str, Any]:
    """The operators that take longest in a step of ours."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    torch.set_num_threads(options.threads)
    on_gpu = options.device != "cpu"
    options.what = "train"
    call = ours(options)
    call()
    with profiler(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as found:
        call()
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    rows = sorted(found.key_averages(), key=lambda row: -getattr(row, key))
    total = sum(getattr(row, key) for row in rows)
    print("| operator | ms | share | calls |\n|---|---:|---:|---:|")
    for row in rows[:20]:
        print(f"| {row.key[:60]} | {getattr(row, key) / 1e3:.1f} | {getattr(row, key) / total:.1%} | {row.count} |")
    return {row.key: getattr(row, key) / 1e3 for row in rows[:20]}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["train", "infer", "growth", "profile"], default="train")
    parser.add_argument("--model", default="r50")
    parser.add_argument("--method", default="softmax_ce")
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--amp", choices=["none", "bf16", "fp16"], default="none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--side", choices=["aegl", "torchvision"], help=argparse.SUPPRESS)
    parser.add_argument("keys", nargs="*", help="other configuration keys of aegl, as key=value")
    options = parser.parse_args()
    arguments = sys.argv[1:]
    if options.side:
        work(options.side, options)
        return
    if options.what == "profile":
        figures = profile(options)
    else:
        figures = (growth if options.what == "growth" else compare)(options, arguments)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
