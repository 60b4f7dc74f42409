"""How a picture of the embedded data set looks: outlines, colours, textures, clutter and background.

Geometry is in pixels, x to the right and y down; colours are RGB in 0..1 until the picture is finished.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

HUES: dict[str, float] = {"red": 0.0, "yellow": 0.15, "green": 0.36, "blue": 0.60, "purple": 0.82}
"""Hues in turns of the colour circle."""
TEXTURES: tuple[str, ...] = ("plain", "striped")

_SUPERSAMPLING = 3
_HUE_JITTER = 0.02
_SATURATION = (0.60, 0.85)
_VALUE = (0.65, 0.90)
_STRIPE_PERIOD = 7 / 96  # of the side
_STRIPE_AMPLITUDE = 0.22
_NOISE = 0.025
_MAX_CLUTTER = 6
_CLUTTER_RADIUS = (0.06, 0.18)  # of the side


@dataclass(frozen=True)
class Figure:
    """One polygon to paint: ``outline`` is ``[k, 2]`` float64 in pixels."""

    outline: np.ndarray
    hue: str
    texture: str


def place(shape: str, centre: tuple[float, float], radius: float, angle: float) -> np.ndarray:
    """Outline of a shape in pixels.

    Args:
        shape: a key of :data:`OUTLINES`.
        centre: x, y of the circumscribed circle, pixels.
        radius: of the circumscribed circle, pixels.
        angle: rotation in radians.

    Returns:
        ``[k, 2]`` float64 vertices.
    """
    cos, sin = math.cos(angle), math.sin(angle)
    return OUTLINES[shape] @ np.array([[cos, sin], [-sin, cos]]) * radius + np.asarray(centre)


def render(figures: Sequence[Figure], side: int, rng: np.random.Generator) -> np.ndarray:
    """Paint background, unlabelled clutter, then the figures in order (later ones on top).

    Returns:
        ``[side, side, 3]`` uint8 RGB.
    """
    canvas = _background(side, rng)
    for figure in [*_clutter(side, rng), *figures]:
        _paint(canvas, figure, rng)
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * _NOISE
    return (canvas.clip(0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def _background(side: int, rng: np.random.Generator) -> np.ndarray:
    coarse = rng.uniform(50, 205, size=(4, 4, 3))
    coarse = 0.5 * coarse + 0.5 * coarse.mean(axis=2, keepdims=True)  # muted, so that objects are told by colour too
    smooth = Image.fromarray(coarse.astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32) / 255


def _clutter(side: int, rng: np.random.Generator) -> list[Figure]:
    """Irregular polygons in the classes' own hues and textures: colour alone must not give an object away."""
    figures = []
    for _ in range(int(rng.integers(0, _MAX_CLUTTER + 1))):
        corners = int(rng.integers(4, 9))
        angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
        radii = rng.uniform(0.35, 1.0, corners) * rng.uniform(*_CLUTTER_RADIUS) * side
        outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] + rng.uniform(0, side, 2)
        hue = list(HUES)[int(rng.integers(len(HUES)))]
        figures.append(Figure(outline, hue, TEXTURES[int(rng.integers(len(TEXTURES)))]))
    return figures


def _paint(canvas: np.ndarray, figure: Figure, rng: np.random.Generator) -> None:
    """Blend one figure into the canvas, touching only the pixels of its own box."""
    side = canvas.shape[0]
    colour = _colour(figure.hue, rng)
    direction, phase = rng.uniform(0, 2 * math.pi, 2)
    x0, y0 = np.floor(figure.outline.min(axis=0)).astype(int).clip(0, side)
    x1, y1 = np.ceil(figure.outline.max(axis=0)).astype(int).clip(0, side)
    if x1 <= x0 or y1 <= y0:  # clutter may fall outside the picture
        return
    cover = _coverage(figure.outline - (x0, y0), x1 - x0, y1 - y0)[..., None]
    paint = np.broadcast_to(colour, (*cover.shape[:2], 3))
    if figure.texture == "striped":
        paint = paint * _stripes(x0, y0, x1, y1, _STRIPE_PERIOD * side, direction, phase)[..., None]
    patch = canvas[y0:y1, x0:x1]
    patch += cover * (paint - patch)


def _colour(hue: str, rng: np.random.Generator) -> np.ndarray:
    turned = (HUES[hue] + rng.uniform(-_HUE_JITTER, _HUE_JITTER)) % 1.0
    return np.array(colorsys.hsv_to_rgb(turned, rng.uniform(*_SATURATION), rng.uniform(*_VALUE)), dtype=np.float32)


def _coverage(outline: np.ndarray, width: int, height: int) -> np.ndarray:
    """Share of each pixel that the outline covers: ``[height, width]`` float32 in 0..1."""
    s = _SUPERSAMPLING
    mask = Image.new("L", (int(width) * s, int(height) * s))
    # Pillow counts from pixel centres, the outline from pixel corners.
    ImageDraw.Draw(mask).polygon((outline * s - 0.5).ravel().tolist(), fill=255)
    return np.asarray(mask.reduce(s), dtype=np.float32) / 255


def _stripes(x0: int, y0: int, x1: int, y1: int, period: float, direction: float, phase: float) -> np.ndarray:
    x = np.arange(x0, x1, dtype=np.float32) * math.cos(direction)
    y = np.arange(y0, y1, dtype=np.float32) * math.sin(direction)
    wave: np.ndarray = np.sin((y[:, None] + x[None, :]) * np.float32(2 * math.pi / period) + np.float32(phase))
    return 1 + np.float32(_STRIPE_AMPLITUDE) * wave


def _polar(angles: np.ndarray, radii: np.ndarray | float = 1.0) -> np.ndarray:
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


def _regular(corners: int) -> np.ndarray:
    return _polar(np.arange(corners) * 2 * math.pi / corners)


def _star() -> np.ndarray:
    return _polar(np.arange(10) * math.pi / 5, np.where(np.arange(10) % 2, 0.42, 1.0))


def _cross() -> np.ndarray:
    arm = [(1, 3), (1, 1), (3, 1)]
    quarter = np.array([*arm, (3, -1), (1, -1), (1, -3)], dtype=float)
    return np.concatenate([quarter, -quarter])


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 28, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1)


def _crescent() -> np.ndarray:
    outer = _polar(np.linspace(0.25 * math.pi, 1.75 * math.pi, 22))
    # The inner arc meets the tips of the outer one, seen from a centre moved to the right.
    centre = np.array([0.55, 0.0])
    tip = outer[-1] - centre
    half = math.atan2(abs(tip[1]), -tip[0]) if tip[0] < 0 else math.pi - math.atan2(abs(tip[1]), tip[0])
    inner = _polar(np.linspace(math.pi + half, math.pi - half, 16), float(np.hypot(*tip))) + centre
    return np.concatenate([outer, inner[1:-1]])


def _arrow() -> np.ndarray:
    return np.array([(5, 0), (0, 4), (0, 1.6), (-5, 1.6), (-5, -1.6), (0, -1.6), (0, -4)], dtype=float)


def _bar() -> np.ndarray:
    return np.array([(3, 1), (-3, 1), (-3, -1), (3, -1)], dtype=float)


def _ell() -> np.ndarray:
    return np.array([(0, 0), (3, 0), (3, 1.1), (1.1, 1.1), (1.1, 4), (0, 4)], dtype=float)


def _to_unit_circle(outline: np.ndarray) -> np.ndarray:
    centred = outline - (outline.min(axis=0) + outline.max(axis=0)) / 2
    return np.asarray(centred / np.linalg.norm(centred, axis=1).max())


OUTLINES: dict[str, np.ndarray] = {
    name: _to_unit_circle(outline)
    for name, outline in {
        "disc": _regular(32),
        "square": _regular(4),
        "triangle": _regular(3),
        "star": _star(),
        "cross": _cross(),
        "heart": _heart(),
        "crescent": _crescent(),
        "arrow": _arrow(),
        "bar": _bar(),
        "ell": _ell(),
    }.items()
}
"""The ten shapes: ``[k, 2]`` vertices inside the unit circle."""
