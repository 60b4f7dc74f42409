"""What `predict` reads: an image, a folder of images, or a glob."""

from __future__ import annotations

import glob
from pathlib import Path

from aegl.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def find_images(source: str | Path, *, key: str = "source") -> list[Path]:
    """The images that ``source`` names, sorted.

    Args:
        source: an image file of any name, a folder (its images, not those of folders below), or a glob (``**`` for all
            folders below).
        key: of the configuration, for messages.

    Raises:
        DataError: if there is no such image.
    """
    text = str(source)
    path = Path(text)
    suffixes = ", ".join(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_image(p))
        if not found:
            raise DataError(
                f"{key}={text}: the folder holds no image ({suffixes}); for folders below it: '{text}/**/*'"
            )
        return found
    if glob.has_magic(text):
        found = sorted(p for p in map(Path, glob.glob(text, recursive=True)) if _is_image(p))  # noqa: PTH207
        if not found:
            raise DataError(f"{key}={text}: the pattern matches no image ({suffixes})")
        return found
    raise DataError(f"{key}={text}: no such file or folder; give an image, a folder, or a pattern in quotes")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
