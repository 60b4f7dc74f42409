"""Image files to the detector's input. Run by Triton's Python backend, where it needs NumPy, Pillow and aegl."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # type: ignore[import-not-found]  # there in Triton only
from PIL import Image, UnidentifiedImageError

from aegl.data.preprocess import UNREADABLE, Preprocess, rgb_pixels
from aegl.metadata import ModelMeta


class TritonPythonModel:
    """``image`` ``[B, 1]`` encoded files to ``images`` of the detector and ``sizes`` ``[B, 4]`` int32: height and width
    of the resized image on its canvas, and of the original."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Read what the model repository says of the detector."""
        told = json.loads((Path(args["model_repository"]) / args["model_version"] / "meta.json").read_text("utf-8"))
        meta = ModelMeta.from_dict(told["meta"])
        canvas = tuple(told["canvas"]) if told["canvas"] else None
        self._preprocess = Preprocess(meta.imgsz, meta.max_size, meta.stride, meta.pad_value, canvas)
        self._dtype, self._channels_last = np.dtype(told["dtype"]), told["channels_last"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request: a file that is no image is an error of that request alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        files = triton.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1)
        try:
            originals = [_read(file) for file in files]
        except UnidentifiedImageError:  # its own words name an object in memory
            return _refusal("it is of no kind that Pillow knows")
        except UNREADABLE as error:
            return _refusal(str(error))
        resized = [self._preprocess.resize(image)[0] for image in originals]
        images = self._preprocess.pad_batch(resized)
        if self._channels_last:
            images = images.transpose(0, 2, 3, 1)
        sizes = [(*small.shape[:2], *image.shape[:2]) for small, image in zip(resized, originals, strict=True)]
        return triton.InferenceResponse([
            triton.Tensor("images", np.ascontiguousarray(images, dtype=self._dtype)),
            triton.Tensor("sizes", np.asarray(sizes, dtype=np.int32)),
        ])  # fmt: skip


def _refusal(reason: str) -> Any:
    return triton.InferenceResponse([], triton.TritonError(f"image cannot be read: {reason}"))


def _read(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return rgb_pixels(image, apply_exif=True)
