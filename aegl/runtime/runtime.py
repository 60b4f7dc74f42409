"""An exported model without PyTorch: images in, detections in their own pixels out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aegl.data.preprocess import UNREADABLE, Preprocess, load_image, rgb_pixels
from aegl.errors import DataError, ExportError, RunError
from aegl.metadata import ModelMeta
from aegl.runtime.graph import INPUT, read_graph
from aegl.runtime.postprocess import to_original
from aegl.runtime.results import Detected
from aegl.runtime.session import first_line, open_session

Picture = Image.Image | np.ndarray | str | Path
"""A Pillow image of any mode, ``[h, w, 3]`` uint8 RGB, or the path of an image file."""


class Runtime:
    """A file written by ``aegl export``, open; needs NumPy, Pillow and ONNX Runtime only.

    Several threads may call it at once. Each call holds the whole of its images in memory: give a hundred thousand in
    portions.

    Args:
        path: the file.
        device: see :func:`aegl.runtime.session.open_session`.
        threads: threads of the CPU provider, None for ONNX Runtime's choice.

    Raises:
        ExportError: if the file cannot be opened or was not written by aegl, or the device did not come up.

    Attributes:
        path: the file.
        preprocess: how images become what :meth:`run` takes.

    Example::

        runtime = Runtime("best.onnx", device="cuda")
        for found in runtime.predict(["a.jpg", "b.jpg"], conf=0.4):
            print(found.names, found.boxes)
    """

    def __init__(self, path: Path | str, device: str = "auto", threads: int | None = None) -> None:
        self.path = Path(path)
        self._session = open_session(self.path, device=device, threads=threads or 0)
        self._graph = read_graph(self._session, self.path)
        meta = self._graph.meta
        self.preprocess = Preprocess(meta.imgsz, meta.max_size, meta.stride, meta.pad_value, self._graph.canvas)

    @property
    def meta(self) -> ModelMeta:
        """Classes, preprocessing and operating point."""
        return self._graph.meta

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of the model."""
        return self._graph.config

    @property
    def canvas(self) -> tuple[int, int] | None:
        """Height and width of the images that the file takes, or None where they are free."""
        return self._graph.canvas

    @property
    def provider(self) -> str:
        """What runs it: ``CUDAExecutionProvider`` or ``CPUExecutionProvider``."""
        return str(self._session.get_providers()[0])

    @property
    def inputs(self) -> list[tuple[str, str, list[Any]]]:
        """Name, type (``tensor(float)``) and shape of every input of the graph; free sizes are names or None."""
        return [(entry.name, entry.type, entry.shape) for entry in self._session.get_inputs()]

    @property
    def outputs(self) -> list[tuple[str, str, list[Any]]]:
        """The same of its outputs."""
        return [(entry.name, entry.type, entry.shape) for entry in self._session.get_outputs()]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run the graph on images of one size.

        They are padded on the right and below to what the graph takes.

        Args:
            images: ``[B, 3, H, W]`` RGB in 0..255, uint8 or floating.

        Returns:
            The fields of :class:`aegl.types.Detections`, in pixels of ``images``: ``boxes`` ``[B, K, 4]`` float32,
            ``scores`` ``[B, K]`` float32, ``labels`` ``[B, K]`` int64, ``masks`` ``[B, K, M, M]`` float32 over each box
            or, of a file exported so, ``[B, K, H, W]`` over the image or absent, ``num_detections`` ``[B]`` int64,
            ``complete`` ``[B]`` bool. Rows of an image from its ``num_detections`` on are padding.

        Raises:
            ExportError: for an array that is no such images, or that does not fit a file of fixed size.
            RunError: if ONNX Runtime fails, for want of memory for instance.
        """
        self._require_images(images)
        height, width = images.shape[2:]
        inputs = self._padded(images).astype(self._graph.dtype, copy=False)
        if self._graph.channels_last:
            inputs = inputs.transpose(0, 2, 3, 1)
        names = self._graph.outputs
        try:
            outputs = self._session.run(list(names), {INPUT: np.ascontiguousarray(inputs)})
        except Exception as error:  # ONNX Runtime's own exceptions have no common base but this
            raise RunError(
                f"{self.path}: ONNX Runtime failed on images of shape {list(images.shape)} ({first_line(error)})"
            ) from error
        found = dict(zip(names, outputs, strict=True))
        if "masks" in found and found["masks"].dtype.kind != "f":
            found["masks"] = found["masks"][..., :height, :width]
        return found

    def predict(self, images: Iterable[Picture], conf: float = 0.3) -> list[Detected]:
        """Detect in images of any sizes; what is found in one does not depend on the others.

        Images are resized as the model was trained, those of one size then run together. A file of fixed size gets
        them as large as fits.

        Args:
            images: Pillow images, ``[h, w, 3]`` uint8 RGB arrays, or paths. The EXIF orientation is applied.
            conf: lowest score to report; the file itself has none below ``meta.conf``.

        Returns:
            One :class:`Detected` per image, in their order.

        Raises:
            DataError: naming the image that cannot be read or is none.
            ExportError: for a ``conf`` outside [0, 1].
            RunError: if ONNX Runtime fails.
        """
        if not 0 <= conf <= 1:
            raise ExportError(f"conf={conf}: must lie in [0, 1]")
        if isinstance(images, Image.Image | str | Path):
            raise DataError(f"predict() takes a list of images, got one {type(images).__name__}")
        sizes: list[tuple[int, int]] = []
        resized: list[np.ndarray] = []
        for number, image in enumerate(images):
            pixels = _pixels(image, number)
            sizes.append((pixels.shape[0], pixels.shape[1]))
            resized.append(self.preprocess.resize(pixels)[0])
        # By canvas: on one larger than its own an image gets slightly other answers.
        groups: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for number, pixels in enumerate(resized):
            groups[self.preprocess.canvas_size([(pixels.shape[0], pixels.shape[1])])].append(number)
        found: dict[int, Detected] = {}
        for numbers in groups.values():
            outputs = self.run(self.preprocess.pad_batch([resized[number] for number in numbers]))
            for row, number in enumerate(numbers):
                found[number] = self.detected(outputs, row, resized[number].shape[:2], sizes[number], conf)
        return [found[number] for number in range(len(resized))]

    def detected(
        self,
        outputs: Mapping[str, np.ndarray],
        row: int,
        size: tuple[int, ...],
        orig_size: tuple[int, int],
        conf: float,
    ) -> Detected:
        """What the outputs of :meth:`run` say of one image, in its own pixels.

        Args:
            outputs: with or without ``masks``.
            row: the image's row in them.
            size: height and width of the resized image inside the padded one.
            orig_size: height and width of the original image.
            conf: lowest score to report.
        """
        count = int(outputs["num_detections"][row])
        boxes, scores, labels = (outputs[name][row, :count] for name in ("boxes", "scores", "labels"))
        masks = outputs["masks"][row, :count] if "masks" in outputs else None
        found = to_original(
            boxes, scores, labels, masks, size=size, orig_size=orig_size, conf=conf, max_det=self.meta.max_det
        )
        return Detected(found, self.meta, orig_size)

    def _require_images(self, images: np.ndarray) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or not math.prod(images.shape):
            raise ExportError(f"{self.path}: takes images of shape [batch, 3, height, width], got {list(images.shape)}")
        if images.dtype != np.uint8 and (images.dtype.kind != "f" or self._graph.dtype == np.uint8):
            floating = "" if self._graph.dtype == np.uint8 else " or floating point"
            raise ExportError(f"{self.path}: takes images of uint8{floating} in 0..255, got {images.dtype}")

    def _padded(self, images: np.ndarray) -> np.ndarray:
        height, width = images.shape[2:]
        canvas = self.preprocess.canvas_size([(height, width)])
        if (height, width) == canvas:
            return images
        if height > canvas[0] or width > canvas[1]:
            raise ExportError(
                f"{self.path}: takes images of {canvas[0]}x{canvas[1]} (height x width), got {height}x{width}; export "
                "with a square size (max_size=imgsz) to take both orientations"
            )
        pad = np.asarray(self.meta.pad_value, dtype=images.dtype)[None, :, None, None]
        padded = np.broadcast_to(pad, (len(images), 3, *canvas)).copy()
        padded[:, :, :height, :width] = images
        return padded


def _pixels(image: Picture, number: int) -> np.ndarray:
    """``[h, w, 3]`` uint8; ``number`` is the image's place in the list, for messages."""
    if isinstance(image, str | Path):
        return load_image(image, apply_exif=True)
    if isinstance(image, Image.Image):
        try:
            return rgb_pixels(image, apply_exif=True)
        except UNREADABLE as error:
            raise DataError(f"image number {number} cannot be read: {error}") from error
    if not isinstance(image, np.ndarray):
        raise DataError(f"image number {number} is a {type(image).__name__}; give a Pillow image, an array or a path")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(
            f"image number {number} must be [height, width, 3] uint8 RGB, is {list(image.shape)} {image.dtype}"
        )
    return image
