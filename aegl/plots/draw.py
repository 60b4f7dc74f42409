"""Pictures of detections: masks, boxes and labels in the colour of each class's frequency band, with a legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from aegl.plots.colors import Color, band_colors, band_label, shade, text_color

_READABLE_SIDE = 480
"""Smaller images are enlarged to about this long side: a label of legible size would hide most of a thumbnail."""
_MASK_OPACITY = 0.45
_SHADES = (1.0, 1.25, 0.8, 1.12, 0.9)
"""Neighbouring objects of one band differ a little in brightness."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Rectangle = tuple[float, float, float, float]


def draw_detections(
    image: np.ndarray,
    *,
    boxes: np.ndarray,
    scores: np.ndarray | None,
    names: Sequence[str],
    bands: np.ndarray,
    band_names: Sequence[str],
    mask_of: Callable[[int], np.ndarray] | None = None,
) -> Image.Image:
    """Draw ``n`` detections over an image.

    Args:
        image: ``[H, W, 3]`` uint8 RGB.
        boxes: ``[n, 4]`` ``x1 y1 x2 y2`` in pixels of ``image``.
        scores: ``[n]`` in [0, 1]; higher ones are drawn over lower ones. None for ground truth: only names are written.
        names: ``n`` class names.
        bands: ``[n]`` integers, index of each detection's class into ``band_names``.
        band_names: names of the bands, rarest first.
        mask_of: gives the mask of a detection, ``[H, W]`` bool or 0/1, by its number; asked for one at a time, since
            hundreds of full-size masks would not fit into memory. None draws boxes only.

    Returns:
        An RGB picture: the image (enlarged by a whole number if it is small) with a legend below it.
    """
    colors = band_colors(len(band_names))
    order = np.arange(len(boxes)) if scores is None else np.argsort(np.asarray(scores), kind="stable")
    own = [shade(colors[int(band)], _SHADES[i % len(_SHADES)]) for i, band in enumerate(bands)]
    scale = max(1, round(_READABLE_SIDE / max(image.shape[:2])))
    pixels = np.repeat(np.repeat(image, scale, axis=0), scale, axis=1)
    width = max(1, round(max(pixels.shape[:2]) / 450))
    if mask_of is not None:
        for i in order:
            _blend_mask(pixels, np.asarray(mask_of(int(i)), dtype=bool), own[i], scale)
    canvas = Image.fromarray(pixels)
    painter = ImageDraw.Draw(canvas)
    font = _font(canvas.size)
    for i in order:
        x1, y1, x2, y2 = (float(v) * scale for v in boxes[i])
        painter.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=own[i], width=width)
    taken: list[Rectangle] = []
    for i in order[::-1]:  # the best detection chooses the place of its label first
        label = names[i] if scores is None else f"{names[i]} {scores[i]:.2f}"
        _write_label(painter, label, boxes[i] * scale, own[i], font, canvas.size, taken)
    counts = np.bincount(np.asarray(bands, dtype=np.int64), minlength=len(band_names))
    return _with_legend(canvas, [band_label(name) for name in band_names], colors, counts.tolist(), font)


def _blend_mask(pixels: np.ndarray, mask: np.ndarray, color: Color, scale: int) -> None:
    """Tint the mask's pixels in place and draw its outline."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    crop = np.repeat(np.repeat(mask[top:bottom, left:right], scale, axis=0), scale, axis=1)
    region = pixels[top * scale : bottom * scale, left * scale : right * scale]
    tinted = region[crop] * (1 - _MASK_OPACITY) + np.array(color) * _MASK_OPACITY
    region[crop] = tinted.astype(np.uint8)
    padded = np.pad(crop, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    region[crop & ~inner] = shade(color, 0.7)


def _write_label(
    painter: ImageDraw.ImageDraw,
    text: str,
    box: np.ndarray,
    color: Color,
    font: Font,
    size: tuple[int, int],
    taken: list[Rectangle],
) -> None:
    """Write a label above its box, or inside, or below it: the first place that is free and inside the picture."""
    left, top, right, bottom = painter.textbbox((0, 0), text, font=font)
    pad = 2
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = min(max(0.0, float(box[0])), max(0.0, size[0] - width))
    candidates = [(x, y, x + width, y + height) for y in (box[1] - height, box[1], box[3], box[3] - height)]
    inside = [c for c in candidates if c[1] >= 0 and c[3] <= size[1]] or [(x, 0.0, x + width, height)]
    place = next((c for c in inside if not any(_overlap(c, other) for other in taken)), inside[0])
    taken.append(place)
    painter.rectangle(place, fill=color)
    painter.text((place[0] + pad - left, place[1] + pad - top), text, fill=text_color(color), font=font)


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _with_legend(
    canvas: Image.Image, labels: Sequence[str], colors: Sequence[Color], counts: Sequence[int], font: Font
) -> Image.Image:
    """Add a strip below the picture: one square, name and number of detections per band, wrapped to the width."""
    painter = ImageDraw.Draw(canvas)
    entries = [f"{label}: {count}" for label, count in zip(labels, counts, strict=True)]
    line = round(1.8 * painter.textbbox((0, 0), "Ag", font=font)[3])
    square = line // 2
    places, x, y = [], square, 0
    for entry in entries:
        needed = square * 3 + painter.textlength(entry, font=font)
        if x > square and x + needed > canvas.width:
            x, y = square, y + line
        places.append((x, y))
        x += round(needed)
    result = Image.new("RGB", (canvas.width, canvas.height + y + line), (255, 255, 255))
    result.paste(canvas, (0, 0))
    painter = ImageDraw.Draw(result)
    for entry, color, (x, y) in zip(entries, colors, places, strict=True):
        top = canvas.height + y + (line - square) // 2
        painter.rectangle((x, top, x + square, top + square), fill=color)
        middle = canvas.height + y + line // 2
        painter.text((x + square * 1.5, middle), entry, fill=(20, 20, 20), font=font, anchor="lm")
    return result


def _font(size: tuple[int, int]) -> Font:
    return ImageFont.load_default(size=float(np.clip(max(size) / 45, 11, 40)))
