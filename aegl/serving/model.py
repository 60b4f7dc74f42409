"""The model behind a server: what it takes and gives, and the steps before and after its graph."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from aegl.data.preprocess import UNREADABLE, rgb_pixels
from aegl.runtime import Runtime
from aegl.serving import kserve
from aegl.serving.refusal import Refusal

VERSION = "1"
PLATFORM = "onnxruntime_onnx"
Image.init()
FORMATS: list[str] = [
    kind for kind in ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF") if kind in Image.OPEN
]
"""What files may be: of Pillow's many readers, those of formats that people have pictures in."""


@dataclass(frozen=True)
class Picture:
    """A decoded image, ready for the graph.

    Args:
        rows: ``[1, 3, H, W]`` uint8, resized and padded.
        size: height and width of the resized image inside it.
        orig_size: height and width of the image as sent.
    """

    rows: np.ndarray
    size: tuple[int, int]
    orig_size: tuple[int, int]


class Model:
    """A runtime with the names that its clients use.

    Args:
        runtime: the open file.
        max_pixels: most pixels of an image file.
    """

    def __init__(self, runtime: Runtime, max_pixels: int) -> None:
        self.name = runtime.path.stem
        self.meta = runtime.meta
        self.inputs = tuple(kserve.of_graph(*tensor) for tensor in runtime.inputs)
        self.outputs = tuple(kserve.of_graph(*tensor) for tensor in runtime.outputs)
        self._runtime = runtime
        self._max_pixels = max_pixels

    @property
    def run(self) -> Any:
        """The graph: see :meth:`aegl.runtime.Runtime.run`."""
        return self._runtime.run

    @property
    def provider(self) -> str:
        """What runs it."""
        return self._runtime.provider

    def metadata(self) -> dict[str, Any]:
        """As the protocol has it, read from the graph."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": [tensor.to_dict() for tensor in self.inputs],
            "outputs": [tensor.to_dict() for tensor in self.outputs],
        }

    def warm_up(self) -> None:
        """Run the graph once at its usual size, so that the first client does not wait for what happens once."""
        landscape = np.zeros((self.meta.imgsz, self.meta.max_size, 3), dtype=np.uint8)
        self._runtime.predict([landscape])

    def picture(self, data: bytes) -> Picture:
        """Decode an image file.

        Raises:
            Refusal: 415 for what is no image, 413 for one of too many pixels, 400 for a broken one.
        """
        pixels = self._decode(data)
        preprocess = self._runtime.preprocess
        resized = preprocess.resize(pixels)[0]
        rows = preprocess.pad_batch([resized])
        return Picture(rows, (resized.shape[0], resized.shape[1]), (pixels.shape[0], pixels.shape[1]))

    def found(self, outputs: Mapping[str, np.ndarray], picture: Picture, *, conf: float, masks: bool) -> dict[str, Any]:
        """What the graph says of a picture, in its own pixels, ready for JSON."""
        wanted = dict(outputs) if masks else {name: value for name, value in outputs.items() if name != "masks"}
        detected = self._runtime.detected(wanted, 0, picture.size, picture.orig_size, conf)
        return {"model": self.name, **detected.to_dict()}

    def rows(self, images: np.ndarray, max_batch: int) -> np.ndarray:
        """A client's tensor as :attr:`run` takes it: ``[B, 3, H, W]``.

        Raises:
            Refusal: 400 for more images than a run has, or larger ones than the model is made for.
        """
        rows = images.transpose(0, 3, 1, 2) if self.inputs[0].shape[3] == 3 else images
        if len(rows) > max_batch:
            raise Refusal(400, f"input {self.inputs[0].name}: {len(rows)} images; at most {max_batch} in a request")
        longest = -(-self.meta.max_size // self.meta.stride) * self.meta.stride
        if max(rows.shape[2:]) > longest:
            raise Refusal(
                400,
                f"input {self.inputs[0].name}: images of {rows.shape[2]}x{rows.shape[3]} (height x width); the model "
                f"takes sides of at most {longest}: resize them as its metadata says, or send the file to /predict",
            )
        return rows

    def _decode(self, data: bytes) -> np.ndarray:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of large images: they are measured below
                image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.UnidentifiedImageError:
            raise Refusal(415, f"the body is no image of a known format ({', '.join(FORMATS)})") from None
        except Image.DecompressionBombError:
            raise self._too_large("far too many") from None
        except UNREADABLE as error:
            raise _broken(error) from None
        with image:
            if image.width * image.height > self._max_pixels:
                raise self._too_large(f"{image.width}x{image.height}")
            try:
                return rgb_pixels(image, apply_exif=True)
            except (*UNREADABLE, MemoryError) as error:
                raise _broken(error) from None

    def _too_large(self, size: str) -> Refusal:
        return Refusal(413, f"the image has {size} pixels; at most {self._max_pixels} are taken (max_pixels)")


def _broken(error: BaseException) -> Refusal:
    return Refusal(400, f"the image cannot be read: {str(error)[:200] or type(error).__name__}")
