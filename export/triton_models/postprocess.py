"""The detector's output to JSON. Run by Triton's Python backend, where it needs NumPy, Pillow and aegl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # there in Triton only

from aegl.metadata import ModelMeta
from aegl.runtime.postprocess import detections_json, to_original


class TritonPythonModel:
    """The detector's outputs and ``sizes`` to ``detections`` ``[B, 1]``: a JSON object per image, as ``aegl predict``
    writes them, boxes and run lengths in pixels of the original."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Read the classes, and the score threshold, which is a parameter of the model's configuration."""
        told = json.loads((Path(args["model_repository"]) / args["model_version"] / "meta.json").read_text("utf-8"))
        self._meta = ModelMeta.from_dict(told["meta"])
        self._has_masks = told["masks"]
        self._conf = float(json.loads(args["model_config"])["parameters"]["conf"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        names = ("boxes", "scores", "labels", "num_detections", "sizes", *(("masks",) if self._has_masks else ()))
        arrays = {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in names}
        found = [[self._json(arrays, row)] for row in range(len(arrays["sizes"]))]
        return triton.InferenceResponse([triton.Tensor("detections", np.asarray(found, dtype=object))])

    def _json(self, arrays: dict[str, np.ndarray], row: int) -> bytes:
        height, width, orig_height, orig_width = arrays["sizes"][row].tolist()
        count = int(arrays["num_detections"][row])
        boxes, scores, labels = (arrays[name][row, :count] for name in ("boxes", "scores", "labels"))
        found = to_original(
            boxes,
            scores,
            labels,
            arrays["masks"][row, :count] if self._has_masks else None,
            size=(height, width),
            orig_size=(orig_height, orig_width),
            conf=self._conf,
            max_det=self._meta.max_det,
        )
        answer = {"height": orig_height, "width": orig_width, "detections": detections_json(self._meta, found)}
        return json.dumps(answer).encode("utf-8")
