"""An exported file behind the interface that the validator and the predictor know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aegl.config import Config
from aegl.config.values import shown
from aegl.errors import CheckpointError, ExportError, RunError
from aegl.export.onnx_graph import META_KEY, OUTPUTS
from aegl.export.session import first_line, open_session
from aegl.metadata import ModelMeta
from aegl.types import Detections


class OnnxBackend:
    """A model in ONNX Runtime; see :class:`aegl.engine.backend.Backend`.

    Args:
        path: a file written by :func:`aegl.export.onnx_graph.export_onnx`.
        device: see :func:`aegl.export.session.open_session`.

    Raises:
        ExportError: if the file cannot be opened or was not written by aegl.
    """

    def __init__(self, path: Path, *, device: str = "auto") -> None:
        self._path = path
        self._session = open_session(path, device=device)
        stored = self._session.get_modelmeta().custom_metadata_map.get(META_KEY)
        if stored is None:
            raise ExportError(f"{path}: an ONNX file, but not one written by `aegl export`: it lacks the metadata")
        try:
            content = json.loads(stored)
            self.meta = ModelMeta.from_dict(content["meta"])
            self.config: dict[str, Any] = content["config"]
            self.canvas: tuple[int, int] | None = tuple(content["canvas"]) if content["canvas"] else None
        except (CheckpointError, ValueError, KeyError, TypeError) as error:
            raise ExportError(
                f"{path}: its metadata is not what this version of aegl writes ({error}); export the model anew"
            ) from error

    def __call__(self, images: np.ndarray) -> Detections:
        """Detect in ``[B, 3, H, W]`` images; see :class:`aegl.engine.backend.Backend`.

        Raises:
            ExportError: for images that do not fit a file of fixed size.
            RunError: if ONNX Runtime fails, for want of memory for instance.
        """
        inputs = self._on_canvas(images).astype(np.float32)
        try:
            outputs = self._session.run(list(OUTPUTS), {"images": inputs})
        except Exception as error:  # ONNX Runtime's own exceptions have no common base but this
            raise RunError(
                f"{self._path}: ONNX Runtime failed on images of shape {list(inputs.shape)} ({first_line(error)})"
            ) from error
        return Detections(*(torch.from_numpy(np.ascontiguousarray(output)) for output in outputs))

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
        for key, (wanted, fixed, differs) in problems.items():
            if differs:
                raise ExportError(
                    f"{key}={shown(wanted)}: {self._path} was exported with {key}={shown(fixed)}; export it anew"
                )

    def _on_canvas(self, images: np.ndarray) -> np.ndarray:
        if self.canvas is None or images.shape[2:] == self.canvas:
            return images
        height, width = images.shape[2:]
        if height > self.canvas[0] or width > self.canvas[1]:
            raise ExportError(
                f"{self._path}: takes images of {self.canvas[0]}x{self.canvas[1]} (height x width), got "
                f"{height}x{width}; export with a square size (max_size=imgsz) to take both orientations"
            )
        pad = np.asarray(self.meta.pad_value, dtype=images.dtype)[None, :, None, None]
        canvas = np.broadcast_to(pad, (len(images), 3, *self.canvas)).copy()
        canvas[:, :, :height, :width] = images
        return canvas
