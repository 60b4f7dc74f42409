"""Where the operators of an exported file run: one profiled run, counted by operator and provider."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aegl.engine.runs import write_text
from aegl.errors import ExportError, RunError
from aegl.runtime.session import CUDA, first_line, open_session

HEAVY = frozenset({
    "Conv", "ConvTranspose", "FusedConv", "NhwcConv", "NhwcFusedConv", "QLinearConv", "ConvInteger",
    "MatMul", "FusedMatMul", "TransposeMatMul", "QLinearMatMul", "MatMulInteger", "Gemm", "FusedGemm",
    "Attention", "MultiHeadAttention", "Einsum", "RoiAlign", "NonMaxSuppression", "TopK", "Resize", "GridSample",
})  # fmt: skip
"""Operators that belong on the GPU however short they were in the run: their cost grows with the image, the classes or
the regions. ONNX Runtime puts arithmetic on shapes onto the CPU on purpose; none of these is used for that."""
HEAVY_SHARE = 0.05
"""Any other operator is heavy too where it takes this share of the run's time off the GPU."""
_COPIES = ("MemcpyFromHost", "MemcpyToHost")
_DTYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(float16)": np.float16}
_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class OperatorPlacement:
    """All nodes of one operator on one provider; ``milliseconds`` of host time, summed over them."""

    operator: str
    provider: str
    count: int
    milliseconds: float


@dataclass(frozen=True)
class Placement:
    """One profiled run.

    Args:
        device: ``cpu`` or ``cuda``: the first provider of the session.
        image: shape of the images that it ran on.
        rows: operators, the longest first.
        copies: nodes that copy between host and GPU, which ONNX Runtime adds where providers meet.
        milliseconds: time of all nodes.
    """

    device: str
    image: tuple[int, ...]
    rows: tuple[OperatorPlacement, ...]
    copies: int
    milliseconds: float

    def heavy_off_gpu(self) -> list[OperatorPlacement]:
        """Operators that keep the file from running on the GPU; see :data:`HEAVY` and :data:`HEAVY_SHARE`."""
        least = HEAVY_SHARE * self.milliseconds
        off = [row for row in self.rows if row.provider != CUDA and row.operator not in _COPIES]
        return [row for row in off if row.operator in HEAVY or row.milliseconds >= least]

    def text(self) -> str:
        """The table for people."""
        rows = [("operator", "provider", "nodes", "ms")]
        rows += [(r.operator, _short(r.provider), str(r.count), f"{r.milliseconds:.2f}") for r in self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"  {a.ljust(widths[0])}  {b.ljust(widths[1])}  {c.rjust(widths[2])}  {d.rjust(widths[3])}"
            for a, b, c, d in rows
        ]
        head = (
            f"placement on {self.device}, images {list(self.image)}: {self.milliseconds:.1f} ms in nodes, "
            f"{self.copies} copies between host and GPU"
        )
        return "\n".join([head, *lines])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "device": self.device,
            "image": list(self.image),
            "milliseconds": self.milliseconds,
            "copies": self.copies,
            "operators": [asdict(row) for row in self.rows],
            "heavy_off_gpu": [asdict(row) for row in self.heavy_off_gpu()],
            "text": self.text(),
        }


def measure_placement(path: Path, size: tuple[int, int], *, device: str = "auto", batch: int = 1) -> Placement:
    """Run a file twice with ONNX Runtime's profiler and read what the second run did.

    On CUDA a node's time is what the host spends on launching it, unless ONNX Runtime was built with CUPTI: trust the
    providers and the copies, and measure times with ``aegl benchmark``.

    Args:
        path: a file written by ``aegl export``.
        size: height and width of the images to run on; ignored where the file fixes its own.
        device: see :func:`aegl.runtime.session.open_session`.
        batch: images in the run.

    Raises:
        ExportError: if the file cannot be opened on the device.
        RunError: if ONNX Runtime fails in the run.
    """
    with tempfile.TemporaryDirectory(prefix="aegl-placement-") as folder:
        session = open_session(path, device=device, profile=Path(folder) / "run")
        images = example_images(session.get_inputs()[0], size, batch)
        try:
            for _ in range(2):
                session.run(None, {session.get_inputs()[0].name: images})
        except Exception as error:  # ONNX Runtime's own exceptions have no common base but this
            raise RunError(f"{path}: ONNX Runtime failed in the profiled run ({first_line(error)})") from error
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        first_provider = session.get_providers()[0]
    return read_profile(events, _short(first_provider).lower(), images.shape)


def require_gpu(path: Path, size: tuple[int, int], *, device: str = "auto") -> Placement:
    """The placement of a file that runs on the GPU as a whole.

    Raises:
        RunError: if CUDA does not come up, or a heavy operator runs elsewhere.
    """
    if device == "cpu":
        raise ExportError("strict_gpu=true, device=cpu: contradict each other; give device=cuda")
    try:
        placement = measure_placement(path, size, device="cuda" if device == "auto" else device)
    except ExportError as error:
        raise RunError(f"strict_gpu=true: {error}") from error
    if off := placement.heavy_off_gpu():
        listed = ", ".join(f"{r.operator} ({r.count} on {_short(r.provider)}, {r.milliseconds:.1f} ms)" for r in off)
        raise RunError(
            f"strict_gpu=true: {path}: operators that belong on the GPU run elsewhere: {listed}; a newer "
            "onnxruntime-gpu or another opset= may have CUDA kernels for them"
        )
    return placement


def read_profile(events: Iterable[Mapping[str, Any]], device: str, image: tuple[int, ...]) -> Placement:
    """Count the node events of the last run in a profile of ONNX Runtime (a list of trace events)."""
    events = list(events)
    begun = max((event["ts"] for event in events if event.get("name") == "model_run"), default=0)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    times: dict[tuple[str, str], float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX) and event["ts"] >= begun:
            key = (str(event["args"]["op_name"]), str(event["args"]["provider"]))
            counts[key] += 1
            times[key] += event["dur"] / 1000  # microseconds
    rows = [OperatorPlacement(*key, counts[key], times[key]) for key in counts]
    rows.sort(key=lambda row: (-row.milliseconds, row.operator, row.provider))
    copies = sum(row.count for row in rows if row.operator in _COPIES)
    return Placement(device, tuple(image), tuple(rows), copies, sum(times.values()))


def add_to_report(report: Path, placement: Placement) -> None:
    """Keep a placement in the JSON beside the exported file.

    Raises:
        RunError: if the report cannot be written.
    """
    content = json.loads(report.read_text(encoding="utf-8"))
    write_text(report, json.dumps({**content, "placement": placement.to_dict()}, indent=1, allow_nan=False) + "\n")


def example_images(described: Any, size: tuple[int, int], batch: int) -> np.ndarray:
    """Images that a session's input takes: noise of 0..255 in its type, of its own sizes where it fixes them.

    Args:
        described: the session's description of the input: ``[B, 3, H, W]``, or ``[B, H, W, 3]`` with the channels last.
        size: height and width where they are free.
        batch: images where their number is free.
    """
    channels_last = described.shape[-1] == 3
    wanted = (batch, *size, 3) if channels_last else (batch, 3, *size)
    shape = [own if isinstance(own, int) else asked for own, asked in zip(described.shape, wanted, strict=True)]
    noise = np.random.default_rng(0).integers(0, 256, shape)
    return noise.astype(_DTYPES[described.type])


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")
