"""The engines that can run a trained model, each as a function of images; made inside the process that measures it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aegl.errors import RunError

ENGINES = ("pytorch", "compiled", "onnx-cpu", "onnx-cuda")
Detect = Callable[[np.ndarray], Any]
"""``[B, 3, H, W]`` uint8 to detections, both in main memory."""


@dataclass(frozen=True)
class Spec:
    """One row of the table.

    Args:
        engine: one of :data:`ENGINES`.
        file: the checkpoint, or the ONNX file.
        config: configuration of the model.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        size: height and width of the images.
        batch: images per call.
        threads: threads of the engine on the CPU.
    """

    engine: str
    file: str
    config: dict[str, Any]
    device: str
    size: tuple[int, int]
    batch: int
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``Spec(**values)`` gives it back."""
        return asdict(self)


def make_engine(spec: Spec) -> Detect:
    """Open the model.

    Raises:
        AeglError: if the file cannot be opened, or the device is not there.
    """
    return _onnx(spec) if spec.engine.startswith("onnx") else _torch(spec, compiled=spec.engine == "compiled")


def _onnx(spec: Spec) -> Detect:
    from aegl.runtime import Runtime

    return Runtime(Path(spec.file), device=spec.device, threads=spec.threads).run


def _torch(spec: Spec, *, compiled: bool) -> Detect:
    import torch

    from aegl.config import Config
    from aegl.engine.backend import TorchBackend
    from aegl.engine.checkpoint import load_checkpoint
    from aegl.engine.restore import rebuild_model

    torch.set_num_threads(spec.threads)
    model, meta = rebuild_model(load_checkpoint(Path(spec.file)), Config.model_validate(spec.config))
    if compiled:
        model.compile(dynamic=False)
    return TorchBackend(model, meta, spec.device)


def example_images(spec: Spec) -> np.ndarray:
    """``[B, 3, H, W]`` uint8: patches of colour with noise, each image another."""
    rng = np.random.default_rng(0)
    height, width = spec.size
    coarse = rng.integers(0, 256, (spec.batch, 3, -(-height // 32), -(-width // 32)))
    patches = np.kron(coarse, np.ones((1, 1, 32, 32), dtype=coarse.dtype))[:, :, :height, :width]
    return np.clip(patches + rng.integers(-20, 21, patches.shape), 0, 255).astype(np.uint8)


def peak_of_process() -> float:
    """Largest resident memory of this process so far, MB; that of its parent does not count."""
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    try:
        import resource
    except ImportError as error:
        raise RunError("this system does not tell the memory of a process") from error
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 2**20  # bytes on macOS


def used_on_gpu(device: str) -> float | None:
    """Memory in use on a GPU by all processes, MB; None on the CPU, or where CUDA does not come up."""
    if not device.startswith("cuda"):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info(torch.device(device))
    return (total - free) / 2**20
