"""Does a model work at the size of LVIS? One training step, inference at 800x1333, export and parity, with their times.

    python benchmarks/full_size.py --model r101 --classes 1203

Weights are random; the classifier is scaled so that scores spread as those of a trained one do, since saturated or tied
scores would make the comparison of PyTorch and ONNX meaningless.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from aegl.config import load_config
from aegl.engine.backend import TorchBackend
from aegl.export.backend import OnnxBackend
from aegl.export.onnx_graph import export_onnx
from aegl.export.parity import check_parity
from aegl.export.parity_cases import parity_cases
from aegl.longtail.statistics import ClassStatistics
from aegl.metadata import ModelMeta
from aegl.models.factory import build_model
from aegl.models.mask_rcnn import MaskRCNN
from aegl.types import Targets

STRIDE = 32


def long_tail(classes: int) -> ClassStatistics:
    """Counts that fall from 50,000 to 1, with LVIS's bands."""
    instances = np.geomspace(50_000, 1, classes).round().astype(np.int64)
    images = np.maximum(instances // 3, 1)
    return ClassStatistics(instances, images, 100_000, np.digitize(images, [11, 101]))


def random_targets(classes: int, batch: int, objects: int, size: tuple[int, int], rng: torch.Generator) -> Targets:
    """Objects of all sizes anywhere in the image."""
    height, width = size
    corner = torch.rand(batch, objects, 2, generator=rng) * torch.tensor([width * 0.7, height * 0.7])
    side = 16 + torch.rand(batch, objects, 2, generator=rng) * 0.25 * height
    labels = torch.randint(0, classes, (batch, objects), generator=rng)
    masks = torch.ones(batch, objects, 56, 56, dtype=torch.uint8)
    return Targets(torch.cat([corner, corner + side], -1), labels, masks, torch.full((batch,), objects))


@torch.no_grad()
def calibrate(model: MaskRCNN, images: Iterable[Tensor]) -> None:
    """Scale random layers so that proposals and class scores spread instead of being alike; the best scores 0.98."""
    model.eval()
    torch.nn.init.normal_(model.rpn.objectness.weight, std=0.1)
    layer: Any = model.box_head.classifier
    logits = torch.cat([_logits(model, batch) for batch in images])
    middle = logits.mean(0)
    factor = 8.0 / (logits - middle).max()
    layer.weight.mul_(factor)
    layer.bias.copy_(factor * (layer.bias - middle) - 4.0)


def _logits(model: MaskRCNN, images: Tensor) -> Tensor:
    """Of the best proposals of the first image."""
    features = model._features(images[:1])
    proposals, valid, _ = model.rpn(features, (images.shape[2], images.shape[3]))
    chosen = proposals[0][valid[0]][:300]
    logits, _ = model.box_head(model.box_pool(features, torch.cat([torch.zeros(len(chosen), 1), chosen], dim=1)))
    return cast(Tensor, logits)


def timed(label: str, work: Callable[[], Any]) -> Any:
    """Run and print the seconds."""
    began = time.perf_counter()
    result = work()
    print(f"  {label:<34}{time.perf_counter() - began:8.1f} s", flush=True)
    return result


def main() -> None:
    """Run the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="r101")
    parser.add_argument("--method", default="fbs_aegl")
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("keys", nargs="*", help="other configuration keys, as key=value")
    options = parser.parse_args()
    keys = dict(key.split("=", 1) for key in options.keys)
    config = load_config({"model": options.model, "method": options.method, "pretrained": False, **keys})
    statistics = long_tail(options.classes)
    size = (-(-config.imgsz // STRIDE) * STRIDE, -(-config.max_size // STRIDE) * STRIDE)
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    print(f"{options.model}, {options.method}, {options.classes} classes, {config.imgsz}x{config.max_size}", flush=True)
    model = timed("build", lambda: build_model(config, statistics))
    images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=rng)
    targets = random_targets(options.classes, 1, 20, size, rng)

    def step() -> dict[str, float]:
        terms = model.train()(images, targets)
        torch.stack(list(terms.values())).sum().backward()
        return {name: round(float(value.detach()), 3) for name, value in terms.items()}

    print(f"  losses {timed('training step, forward and backward', step)}", flush=True)
    meta = meta_of(model, options.classes, config)
    canvas = None if model.backbone.dynamic_size else size
    calibrate(model, (torch.from_numpy(batch) for _, batch in parity_cases(meta, canvas)))
    torch_backend = TorchBackend(model, meta)
    found = timed("inference in PyTorch", lambda: torch_backend(images.numpy()))
    scores = found.scores[0, : int(found.num_detections[0])]
    print(f"  {len(scores)} detections, scores {float(scores[-1]):.3f} to {float(scores[0]):.3f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        free = canvas is None
        exported = timed("export", lambda: export_onnx(model, meta, path, config=config.model_dump(), dynamic=free))
        onnx = timed(f"opening {path.stat().st_size / 2**20:.0f} MB", lambda: OnnxBackend(path, device="cpu"))
        timed("inference in ONNX Runtime", lambda: onnx(images.numpy()))
        print(f"  input {'any size' if exported.canvas is None else exported.canvas}, opset {exported.opset}")
        print(timed("parity", lambda: check_parity(torch_backend, onnx, meta, canvas=exported.canvas)).text())


def meta_of(model: MaskRCNN, classes: int, config: Any) -> ModelMeta:
    """Metadata of a model without a data set."""
    return ModelMeta(
        names=tuple(f"class {i}" for i in range(classes)),
        category_ids=tuple(range(1, classes + 1)),
        band_names=("r", "c", "f"),
        class_band=(0,) * classes,
        model=config.model,
        method=config.method,
        data="none",
        protocol="lvis",
        imgsz=config.imgsz,
        max_size=config.max_size,
        stride=model.stride,
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
        conf=model.postprocess.conf,
        iou=model.postprocess.iou,
        max_det=model.postprocess.max_det,
        mask_size=2 * config.mask.pool,
    )


if __name__ == "__main__":
    main()
