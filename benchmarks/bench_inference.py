"""Inference at the size of LVIS beside torchvision's Mask R-CNN: eager, exported, and four images at once, in one run.

    python benchmarks/bench_inference.py --classes 1203 --threads 1

The same backbone (ResNet-50 FPN), image size, threshold (1e-4) and number of detections (300) for all. Weights are
random; both classifiers are scaled alike so that scores spread as those of a trained model do. The contenders take
turns, so that what slows the machine down slows all of them; figures are medians.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from synthetic import calibrate, long_tail, meta_of
from torchvision.models.detection import maskrcnn_resnet50_fpn

from aegl.config import load_config
from aegl.engine.backend import TorchBackend
from aegl.export.onnx_graph import export_onnx
from aegl.models.factory import build_model
from aegl.runtime.session import open_session

THRESHOLD, DETECTIONS = 1e-4, 300

Run = Callable[[int], Any]
"""One call with that many images."""


def torchvision_model(options: argparse.Namespace, image: torch.Tensor) -> torch.nn.Module:
    """Mask R-CNN with as many classes, its random scores spread like those of ours."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=options.classes + 1,
        min_size=options.height,
        max_size=options.width,
        box_score_thresh=THRESHOLD,
        box_detections_per_img=DETECTIONS,
    ).eval()
    seen: dict[str, torch.Tensor] = {}
    predictor = model.roi_heads.box_predictor.cls_score
    handle = predictor.register_forward_hook(lambda _, __, output: seen.update(logits=output))
    with torch.no_grad():
        torch.nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.1)
        model([image])
        middle = seen["logits"].mean(0)
        factor = 8.0 / float((seen["logits"] - middle).max())
        predictor.weight.mul_(factor)
        predictor.bias.copy_(factor * (predictor.bias - middle))
        predictor.bias[0] += 4.0  # most regions are background
    handle.remove()
    return model


def eager_torchvision(options: argparse.Namespace, images: np.ndarray) -> tuple[Run, torch.nn.Module]:
    """The model in PyTorch."""
    picture = torch.from_numpy(images[0]).float() / 255
    model = torchvision_model(options, picture).to(options.device)
    pictures = [torch.from_numpy(image).float().div(255).to(options.device) for image in images]

    @torch.inference_mode()
    def run(batch: int) -> Any:
        return model(pictures[:batch])

    return run, model


def onnx_torchvision(options: argparse.Namespace, model: torch.nn.Module, images: np.ndarray, folder: Path) -> Run:
    """The model as torchvision exports it: by TorchScript, one image at a time."""
    path = folder / "torchvision.onnx"
    picture = torch.from_numpy(images[0]).float() / 255
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.cpu(), ([picture],), str(path), opset_version=16, dynamo=False, input_names=["image"],
            dynamic_axes={"image": {1: "height", 2: "width"}},
        )  # fmt: skip
    session = _session(path, options)
    feed = {"image": picture.numpy()}
    return lambda batch: [session.run(None, feed) for _ in range(batch)]


def aegl_model(options: argparse.Namespace, images: np.ndarray, folder: Path) -> tuple[Run, Run, Path]:
    """The model in PyTorch, in ONNX Runtime, and the file."""
    config = load_config({
        "model": "r50", "method": "softmax_ce", "pretrained": False, "conf": THRESHOLD, "max_det": DETECTIONS,
        "imgsz": options.height, "max_size": options.width, "train_imgsz": [options.height],
    })  # fmt: skip
    torch.manual_seed(0)
    model = build_model(config, long_tail(options.classes))
    padded = _padded(images, model.stride)
    calibrate(model, [torch.from_numpy(padded[:1])])
    meta = meta_of(model, options.classes, config)
    path = folder / "aegl.onnx"
    export_onnx(model, meta, path, config=config.model_dump(), dynamic=True)
    backend, session = TorchBackend(model, meta, options.device), _session(path, options)
    floats = padded.astype(np.float32)
    return (
        lambda batch: backend(padded[:batch]),
        lambda batch: session.run(None, {"images": floats[:batch]}),
        path,
    )


def _padded(images: np.ndarray, stride: int) -> np.ndarray:
    height, width = (-(-side // stride) * stride for side in images.shape[2:])
    return np.pad(images, ((0, 0), (0, 0), (0, height - images.shape[2]), (0, width - images.shape[3])))


def _session(path: Path, options: argparse.Namespace) -> Any:
    return open_session(path, device=options.device, threads=options.threads)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1333)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-torchvision-onnx", action="store_true", help="leave out the slowest to prepare")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = np.random.default_rng(0).integers(
        0, 256, (options.batch, 3, options.height, options.width), dtype=np.uint8
    )
    with tempfile.TemporaryDirectory() as folder:
        contenders = _contenders(options, images, Path(folder))
        seconds = _in_turn(contenders, options.repeats)
    base = statistics.median(seconds["torchvision, PyTorch"])
    rows = {name: (statistics.median(each), contenders[name][1]) for name, each in seconds.items()}
    print(
        f"\n{options.classes} classes, {options.height}x{options.width}, {options.device}, {options.threads} threads\n"
    )
    print("| | seconds an image | of torchvision's PyTorch |\n|---|---:|---:|")
    for name, (median, _) in rows.items():
        print(f"| {name} | {median:.2f} | {median / base:.2f} |")
    if options.json:
        figures = {name: {"seconds": median, "ratio": median / base} for name, (median, _) in rows.items()}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def _contenders(options: argparse.Namespace, images: np.ndarray, folder: Path) -> dict[str, tuple[Run, int]]:
    """What is measured, and with how many images a call."""
    found: dict[str, tuple[Run, int]] = {}
    run, model = eager_torchvision(options, images)
    found["torchvision, PyTorch"] = run, 1
    if not options.no_torchvision_onnx:
        print("exporting torchvision's model", flush=True)
        found["torchvision, its own ONNX file"] = onnx_torchvision(options, model, images, folder), 1
        model.to(options.device)
    print("exporting aegl's model", flush=True)
    eager, onnx, path = aegl_model(options, images, folder)
    found["aegl, PyTorch"] = eager, 1
    found["aegl, ONNX file"] = onnx, 1
    found[f"aegl, ONNX file, {options.batch} images at once"] = onnx, options.batch
    print(f"aegl's file: {path.stat().st_size / 2**20:.0f} MB", flush=True)
    gc.collect()
    return found


def _in_turn(contenders: dict[str, tuple[Run, int]], repeats: int) -> dict[str, list[float]]:
    """Seconds an image of every timed call, after one that is not."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, (run, batch) in contenders.items():
            began = time.perf_counter()
            run(batch)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            took = (time.perf_counter() - began) / batch
            if repeat:
                seconds[name].append(took)
            print(f"  {name}: {took:.2f} s an image", flush=True)
    return seconds


if __name__ == "__main__":
    main()
