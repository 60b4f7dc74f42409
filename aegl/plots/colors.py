"""Colours of frequency bands: told apart with every kind of colour vision (palette of Okabe and Ito, 2008)."""

from __future__ import annotations

Color = tuple[int, int, int]

_VERMILION, _ORANGE, _YELLOW = (213, 94, 0), (230, 159, 0), (240, 228, 66)
_GREEN, _SKY, _BLUE = (0, 158, 115), (86, 180, 233), (0, 114, 178)
_PALETTES: dict[int, tuple[Color, ...]] = {
    1: (_BLUE,),
    2: (_VERMILION, _BLUE),
    3: (_VERMILION, _GREEN, _BLUE),
    4: (_VERMILION, _ORANGE, _GREEN, _BLUE),
    5: (_VERMILION, _ORANGE, _GREEN, _SKY, _BLUE),
    6: (_VERMILION, _ORANGE, _YELLOW, _GREEN, _SKY, _BLUE),
}
_WORDS = {"r": "rare", "c": "common", "f": "frequent"}


def band_colors(num_bands: int) -> list[Color]:
    """RGB in 0..255 of every band, rarest first: vermilion for the rarest, blue for the most frequent.

    More than six bands share colours with their neighbours.
    """
    palette = _PALETTES[min(max(num_bands, 1), 6)]
    return [palette[band * len(palette) // num_bands] for band in range(num_bands)]


def band_label(name: str) -> str:
    """A band's name for people: LVIS's one-letter names are spelt out."""
    return _WORDS.get(name, name)


def text_color(background: Color) -> Color:
    """Black or white, whichever reads better on ``background`` (relative luminance of BT.709)."""
    r, g, b = background
    return (0, 0, 0) if 0.2126 * r + 0.7152 * g + 0.0722 * b > 140 else (255, 255, 255)


def shade(color: Color, factor: float) -> Color:
    """``color`` darkened (factor below 1) or lightened towards white (above 1)."""
    if factor <= 1:
        r, g, b = (round(v * factor) for v in color)
    else:
        r, g, b = (round(v + (255 - v) * (factor - 1)) for v in color)
    return r, g, b
