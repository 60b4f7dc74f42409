"""An exported file behind the interface that the validator and the predictor know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from aegl.config import Config
from aegl.config.values import shown
from aegl.engine.memory import INFERENCE_REMEDIES, describe_images, out_of_memory_told
from aegl.errors import ExportError
from aegl.runtime import Runtime
from aegl.runtime.graph import OUTPUTS
from aegl.types import Detections


class OnnxBackend:
    """A model in ONNX Runtime; see :class:`aegl.engine.backend.Backend`.

    Args:
        path: a file written by :func:`aegl.export.onnx_graph.export_onnx`.
        device: see :func:`aegl.runtime.session.open_session`.

    Raises:
        ExportError: if the file cannot be opened or was not written by aegl.
    """

    def __init__(self, path: Path, *, device: str = "auto") -> None:
        self._runtime = Runtime(path, device=device)
        self.meta = self._runtime.meta
        self.config = self._runtime.config
        self.canvas = self._runtime.canvas

    def __call__(self, images: np.ndarray) -> Detections:
        """Detect in ``[B, 3, H, W]`` images; see :meth:`aegl.runtime.Runtime.run` for what it raises."""
        with out_of_memory_told(lambda: describe_images(images), INFERENCE_REMEDIES):
            outputs = self._runtime.run(images)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in outputs.items()}
        return Detections(**{name: tensors.get(name) for name in OUTPUTS})  # type: ignore[arg-type]  # masks alone may lack

    def require(self, asked: Config) -> None:
        """Refuse settings that the graph, in which they are fixed, cannot follow.

        Raises:
            ExportError: for another IoU, number of candidates or calibration, more detections, or a lower score
                threshold than it was exported with.
        """
        meta, own = self.meta, Config.model_validate(self.config)
        equal = {
            "iou": (asked.iou, meta.iou),
            "nms_candidates": (asked.nms_candidates, own.nms_candidates),
            "calibrate": (asked.calibrate.model_dump(), own.calibrate.model_dump()),
        }
        problems = {key: (wanted, fixed, wanted != fixed) for key, (wanted, fixed) in equal.items()}
        problems["max_det"] = (asked.max_det, meta.max_det, asked.max_det > meta.max_det)
        problems["conf"] = (asked.conf, meta.conf, asked.conf is not None and asked.conf < meta.conf)
        path = self._runtime.path
        for key, (wanted, fixed, differs) in problems.items():
            if differs:
                raise ExportError(
                    f"{key}={shown(wanted)}: {path} was exported with {key}={shown(fixed)}; export it anew"
                )
