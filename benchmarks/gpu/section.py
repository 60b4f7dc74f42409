"""What the sections of the GPU suite share: arguments, rows that are on the disk once they are measured, timing."""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from synthetic import long_tail, random_batch

from aegl.config import Config, load_config
from aegl.engine.distributed import World
from aegl.engine.optim import build_optimizer
from aegl.engine.stepper import Amp, Stepper
from aegl.models.factory import build_model

CLASSES, SIZE, OBJECTS = 1203, (800, 1344), 20
TINY = {
    "neck.channels": 16,
    "box.hidden": 32,
    "mask.channels": 8,
    "imgsz": 64,
    "max_size": 96,
    "train_imgsz": [64],
    "warmup_iterations": 1,
}
"""A model that a CPU trains in moments, to try a section out."""


@dataclass
class Section:
    """One section's arguments and what it has measured.

    Args:
        device: where to measure.
        path: JSON file of the rows, written anew after every one: what is measured stays, whatever comes then.
        smoke: tiny sizes, to see that the section works.
    """

    device: torch.device
    path: Path
    smoke: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)

    @property
    def classes(self) -> int:
        """Number of classes of a model."""
        return 20 if self.smoke else CLASSES

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network input."""
        return (64, 96) if self.smoke else SIZE

    @property
    def compiler(self) -> str:
        """What `torch.compile` compiles with; in a smoke run not the one that takes a minute."""
        return "aot_eager" if self.smoke else "inductor"

    @property
    def is_cuda(self) -> bool:
        """Whether there is a GPU to measure."""
        return self.device.type == "cuda"

    def add(self, setting: str, **figures: Any) -> None:
        """Keep a row: what was measured, and its figures by name (underscores are shown as spaces)."""
        self.rows.append({"setting": setting, "figures": figures})
        print(f"{setting}: {figures}", flush=True)
        self._write()

    def skip(self, setting: str, reason: str) -> None:
        """Keep that something could not be measured."""
        self.missing.append({"setting": setting, "reason": reason})
        print(f"{setting}: not measured, {reason}", flush=True)
        self._write()

    @contextmanager
    def attempt(self, setting: str) -> Iterator[None]:
        """Run one measurement; its failure is kept and does not end the section."""
        try:
            yield
        except Exception as error:
            self.skip(setting, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        finally:
            if self.is_cuda:
                torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """Wait for the GPU."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any], repeats: int, warmup: int = 2) -> list[float]:
        """Seconds of each call, the GPU's work included."""
        for _ in range(warmup):
            work()
        times = []
        for _ in range(repeats):
            self.synchronize()
            began = time.perf_counter()
            work()
            self.synchronize()
            times.append(time.perf_counter() - began)
        return times

    def peak_gib(self) -> float | None:
        """Most memory that tensors held since :meth:`reset_peak`; None on a CPU."""
        return round(torch.cuda.max_memory_allocated(self.device) / 2**30, 2) if self.is_cuda else None

    def reset_peak(self) -> None:
        """Start to look for the peak of memory."""
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

    def config(self, model: str = "r50", **keys: Any) -> Config:
        """Configuration of a model with random weights."""
        name = "mini" if self.smoke else model
        return load_config({"model": name, "pretrained": False, **(TINY if self.smoke else {}), **keys})

    def _write(self) -> None:
        self.path.write_text(json.dumps({"rows": self.rows, "missing": self.missing}, indent=1))


def open_section(description: str | None) -> Section:
    """The section that the command line asks for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, required=True, help="file for what is measured")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    return Section(torch.device(options.device), options.json, options.smoke)


class TrainingStep:
    """A real training step of a model on one made-up batch, over and over.

    Args:
        section: sizes and device.
        model: name of the model.
        batch: images of a step.
        amp: precision.
        channels_last: memory layout of weights and images.
        compiled: compile backbone and neck.
    """

    def __init__(
        self,
        section: Section,
        model: str = "r50",
        *,
        batch: int = 2,
        amp: Amp = "bf16",
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        config = section.config(model)
        self.model = build_model(config, long_tail(section.classes), backbone_from_config=False)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = self.model.to(section.device, memory_format=layout).train()
        if compiled:
            self.model.backbone.compile(backend=section.compiler)
            self.model.neck.compile(backend=section.compiler)
        optimizer = build_optimizer(
            self.model, name="sgd", lr=1e-5, momentum=0.9, nesterov=False, weight_decay=1e-4, norm_decay=True
        )
        self._stepper = Stepper(self.model, optimizer, world=World(device=section.device), amp=amp)
        rng = torch.Generator().manual_seed(0)
        made = random_batch(section.classes, batch, OBJECTS, section.size, rng)
        made.images = made.images.contiguous(memory_format=layout)
        if section.is_cuda:
            made.images = made.images.pin_memory()
        self._batch = made
        self.model.box_head.step_begin(0.5, 0.0)

    def __call__(self) -> None:
        """One step."""
        self._stepper.step([self._batch], lr=1e-5)


def median_ms(times: list[float]) -> float:
    """Median in milliseconds."""
    return round(1000 * statistics.median(times), 2)
