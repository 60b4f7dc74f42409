"""Latency of inference at 800x1344 with 1203 classes: PyTorch, eager and compiled, and files in ONNX Runtime.

Images come from main memory and detections go back there. Files are fp32, fp16 and int8.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from section import Section, open_section
from synthetic import calibrate, long_tail, meta_of

from aegl.config import Config
from aegl.engine.backend import TorchBackend
from aegl.models.factory import build_model
from aegl.models.mask_rcnn import MaskRCNN

BATCHES = (1, 4)


def images_of(section: Section, batch: int) -> np.ndarray:
    """Patches of colour with noise."""
    rng = np.random.default_rng(0)
    height, width = section.size
    patches = np.kron(rng.integers(0, 200, (batch, 3, height // 32, width // 32)), np.ones((1, 1, 32, 32), dtype=int))
    return (patches + rng.integers(0, 50, patches.shape)).astype(np.uint8)


def latency(section: Section, setting: str, detect: Callable[[np.ndarray], Any]) -> None:
    """Rows of every batch size."""
    for batch in BATCHES:
        name = f"{setting}, batch {batch}"
        with section.attempt(name):
            images = images_of(section, batch)
            section.reset_peak()
            times = section.seconds(partial(detect, images), 3 if section.smoke else 20, warmup=3)
            p50, p95 = np.percentile(np.array(times) * 1000, [50, 95])
            section.add(name, p50_ms=round(p50, 1), p95_ms=round(p95, 1), gib=section.peak_gib())


def in_pytorch(section: Section, model: MaskRCNN, config: Config) -> None:
    """Eager in fp32 and bf16, then compiled."""
    meta = meta_of(model, section.classes, config)
    backend = TorchBackend(model, meta, section.device)
    latency(section, "r50 eager fp32", backend)

    def in_bf16(images: np.ndarray) -> Any:
        with torch.autocast(section.device.type, torch.bfloat16):
            return backend(images)

    latency(section, "r50 eager bf16", in_bf16)
    with section.attempt("r50 compiled fp32"):
        model.compile(dynamic=False, backend=section.compiler)
        latency(section, "r50 compiled fp32", TorchBackend(model, meta, section.device))


def in_onnx_runtime(section: Section, model: MaskRCNN, config: Config) -> None:
    """One file per precision: where its operators run, and how fast."""
    from PIL import Image

    from aegl.export.backend import OnnxBackend
    from aegl.export.onnx_graph import export_onnx
    from aegl.export.placement import measure_placement

    meta = meta_of(model, section.classes, config)
    device = "cuda" if section.is_cuda else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "calibration.png"
        Image.fromarray(images_of(section, 1)[0].transpose(1, 2, 0)).save(picture)
        for precision in ("fp32", "fp16", "int8"):
            name = f"r50 ONNX Runtime {device} {precision}"
            with section.attempt(name):
                path = Path(folder) / f"{precision}.onnx"
                options: dict[str, Any] = {"calibration": (picture,)} if precision == "int8" else {}
                export_onnx(model, meta, path, config=config.model_dump(), precision=precision, **options)
                backend = OnnxBackend(path, device=device)
                placed = measure_placement(path, section.size, device=device)
                off = {row.operator: row.count for row in placed.heavy_off_gpu()} if section.is_cuda else {}
                section.add(f"{name}: heavy operators off the GPU", operators=off or "none", copies=placed.copies)
                latency(section, name, backend)


def main() -> None:
    """Run the section."""
    section = open_section(__doc__)
    config = section.config("r50")
    model = build_model(config, long_tail(section.classes), backbone_from_config=False)
    calibrate(model, [torch.from_numpy(images_of(section, 1))])
    in_pytorch(section, model, config)
    onnx = "ONNX Runtime"
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # what the export needs
    except ImportError as error:
        section.skip(onnx, f"{error}")
        return
    if section.is_cuda and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        section.skip(onnx, "this onnxruntime has no CUDA provider; bring the wheel of onnxruntime-gpu")
        return
    fresh = build_model(config, long_tail(section.classes), backbone_from_config=False)
    fresh.load_state_dict(model.state_dict())  # one that was never compiled, on the CPU
    in_onnx_runtime(section, fresh.eval(), config)


if __name__ == "__main__":
    main()
