"""From an image file to the network's input and back, with NumPy and Pillow only: a runtime without torch uses it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from aegl.errors import DataError

# What Pillow raises on files that are broken in one way or another.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")


@dataclass(frozen=True)
class Preprocess:
    """Resizing and padding of images, the same in training, evaluation and prediction.

    Args:
        imgsz: length the short side is resized to, pixels.
        max_size: largest length of the long side, pixels; wins over ``imgsz``.
        stride: canvases are padded to multiples of it.
        pad_value: RGB in 0..255 of the padding.
        canvas: height and width of the only canvas that the model takes, if it takes one only: images are made to fit.
    """

    imgsz: int
    max_size: int
    stride: int
    pad_value: tuple[int, int, int]
    canvas: tuple[int, int] | None = None

    def target_size(self, height: int, width: int, short_side: int | None = None) -> tuple[int, int]:
        """Height and width after resizing, the ratio kept; ``short_side`` replaces ``imgsz``."""
        scale = (short_side or self.imgsz) / min(height, width)
        scale = min(scale, self.max_size / max(height, width))
        if self.canvas is not None:
            scale = min(scale, self.canvas[0] / height, self.canvas[1] / width)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def resize(self, image: np.ndarray, short_side: int | None = None) -> tuple[np.ndarray, float, float]:
        """Resize an image (Pillow's bilinear filter, antialiased).

        Args:
            image: ``[h, w, 3]`` uint8.
            short_side: replaces ``imgsz`` (training draws it).

        Returns:
            The ``[h', w', 3]`` uint8 image (the same one if its size already fits), and ``h' / h``, ``w' / w``.
        """
        height, width = image.shape[:2]
        new_height, new_width = self.target_size(height, width, short_side)
        if (new_height, new_width) == (height, width):
            return image, 1.0, 1.0
        resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
        return np.asarray(resized), new_height / height, new_width / width

    def canvas_size(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """The model's only canvas, or height and width that hold all of ``sizes`` and are multiples of the stride."""
        if self.canvas is not None:
            return self.canvas
        height, width = (max(1, *side) for side in zip(*sizes, strict=True))
        return -(-height // self.stride) * self.stride, -(-width // self.stride) * self.stride

    def pad_batch(self, images: Sequence[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
        """Put images onto one canvas, padded on the right and below.

        Args:
            images: each ``[h, w, 3]`` uint8.
            out: where to put the result, of its shape and uint8; None for new memory.

        Returns:
            ``[B, 3, H, W]`` uint8, ``H`` and ``W`` being :meth:`canvas_size`; ``out`` if given.
        """
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        batch = np.empty((len(images), 3, *self.canvas_size(sizes)), dtype=np.uint8) if out is None else out
        pad = np.array(self.pad_value, dtype=np.uint8)[:, None, None]
        for canvas, image, (height, width) in zip(batch, images, sizes, strict=True):
            canvas[:, height:, :] = pad
            canvas[:, :height, width:] = pad
            canvas[:, :height, :width] = image.transpose(2, 0, 1)
        return batch


def scale_boxes_to_orig(boxes: np.ndarray, size: Sequence[int], orig_size: Sequence[int]) -> np.ndarray:
    """Boxes of the network input in pixels of the original image.

    Args:
        boxes: ``[n, 4]`` x1 y1 x2 y2 in pixels of the input; they may reach into its padding.
        size: height and width of the resized image inside the padded canvas.
        orig_size: height and width of the original image.

    Returns:
        ``[n, 4]`` float32, clipped to the original image.
    """
    scale = np.array([orig_size[1] / size[1], orig_size[0] / size[0]] * 2, dtype=np.float64)
    limit = np.array([orig_size[1], orig_size[0]] * 2, dtype=np.float64)
    return np.clip(np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale, 0, limit).astype(np.float32)


def load_image(path: Path | str, *, apply_exif: bool = False) -> np.ndarray:
    """Read an image as RGB.

    Args:
        path: the file.
        apply_exif: see :func:`rgb_pixels`.

    Returns:
        ``[h, w, 3]`` uint8.

    Raises:
        DataError: naming the file, when it is missing, truncated or no image Pillow can read.
    """
    try:
        with Image.open(path) as image:
            return rgb_pixels(image, apply_exif=apply_exif)
    except FileNotFoundError:
        raise DataError(f"image {path} does not exist") from None
    except UNREADABLE as error:
        raise DataError(f"image {path} cannot be read: {error}") from error


def rgb_pixels(image: Image.Image, *, apply_exif: bool = False) -> np.ndarray:
    """An image that Pillow has opened, as RGB.

    Greyscale, palette and CMYK images are converted, 16-bit ones reduced to 8 bits, an alpha channel is dropped.

    Args:
        image: of any mode.
        apply_exif: turn the image as its EXIF orientation says. Never for annotated data, whose boxes refer to the
            stored pixels; for pictures given to a model, yes.

    Returns:
        ``[h, w, 3]`` uint8.

    Raises:
        UNREADABLE: when the file behind it is truncated or broken, or its pixels are floating-point numbers.
    """
    image.load()
    return np.asarray(_to_rgb(ImageOps.exif_transpose(image) if apply_exif else image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in _SIXTEEN_BIT:
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, whose range is not known; convert it to 8 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
