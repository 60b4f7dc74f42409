"""Does a model work at the size of LVIS? One training step, inference at 800x1333, export and parity, with their times.

    python benchmarks/full_size.py --model r101 --classes 1203

Weights are random; the classifier is scaled so that scores spread as those of a trained one do, since saturated or tied
scores would make the comparison of PyTorch and ONNX meaningless.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from synthetic import calibrate, long_tail, meta_of, random_targets

from aegl.config import load_config
from aegl.engine.backend import TorchBackend
from aegl.export.backend import OnnxBackend
from aegl.export.onnx_graph import export_onnx
from aegl.export.parity import check_parity
from aegl.export.parity_cases import parity_cases
from aegl.models.factory import build_model

STRIDE = 32


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


if __name__ == "__main__":
    main()
