"""The images on which an exported file is compared with PyTorch: sizes, batches and contents that break graphs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aegl.metadata import ModelMeta

_SEED = 0
_NOISE = 3
"""Grey levels, either way."""


def parity_cases(meta: ModelMeta, canvas: tuple[int, int] | None) -> Iterator[tuple[str, np.ndarray]]:
    """Names and ``[B, 3, H, W]`` uint8 images.

    Args:
        meta: the model's metadata.
        canvas: the only size the file takes, or None.
    """
    rng = np.random.default_rng(_SEED)
    stride = meta.stride
    side = -(-meta.imgsz // stride) * stride
    usual = canvas or (side, side)
    small = canvas or (stride, stride)
    large = canvas or (side, -(-meta.max_size // stride) * stride + stride)
    wide = canvas or (stride, 8 * stride)
    blank, full = _blank(rng, meta, usual), _scene(rng, usual, 12)
    yield "blank", blank[None]
    yield "full", full[None]
    yield "blank after full", blank[None]
    yield "small", _scene(rng, small, 2)[None]
    yield "large", _scene(rng, large, 20)[None]
    yield "very wide", _scene(rng, wide, 5)[None]
    yield "crowded", _scene(rng, usual, 150)[None]
    yield "batch of 3", np.stack([_scene(rng, usual, 6), blank, _scene(rng, usual, 60)])


def is_blank(images: np.ndarray) -> np.ndarray:
    """``[B]`` bool, which of ``[B, 3, H, W]`` uint8 images show nothing but noise."""
    flat = images.reshape(*images.shape[:2], -1)
    return np.asarray((np.ptp(flat, axis=2) <= 2 * _NOISE).all(axis=1))


def _blank(rng: np.random.Generator, meta: ModelMeta, size: tuple[int, int]) -> np.ndarray:
    """Nothing but padding."""
    return _noisy(rng, np.broadcast_to(np.asarray(meta.pad_value)[:, None, None], (3, *size)))


def _scene(rng: np.random.Generator, size: tuple[int, int], objects: int) -> np.ndarray:
    """Striped rectangles of many sizes before a grey ground."""
    height, width = size
    image = np.full((3, height, width), 128)
    for _ in range(objects):
        h, w = (rng.uniform(0.05, 0.5, 2) * min(height, width)).astype(int) + 4
        y, x = rng.integers(0, max(height - h, 1)), rng.integers(0, max(width - w, 1))
        colour = rng.integers(0, 256, (3, 1, 1))
        stripes = (np.arange(w) // rng.integers(2, 9) % 2) * rng.integers(0, 90)
        image[:, y : y + h, x : x + w] = (colour + stripes)[..., : min(w, width - x)]
    return _noisy(rng, image)


def _noisy(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """``[3, H, W]`` uint8. Without noise, even areas score exactly the same, and which of them is kept is chance."""
    return np.clip(image + rng.integers(-_NOISE, _NOISE + 1, image.shape), 0, 255).astype(np.uint8)
