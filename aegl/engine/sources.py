"""What `predict` reads: images, folders, globs, addresses, standard input, videos and cameras, as frames one by one."""

from __future__ import annotations

import glob
import io
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import numpy as np
from PIL import Image

from aegl.data.preprocess import UNREADABLE, load_image, rgb_pixels
from aegl.engine.video import VIDEO_SUFFIXES, VideoInfo, probe, video_frames
from aegl.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
STDIN = "-"
_LARGEST = 100_000_000
"""Bytes that are fetched from an address at most."""
_PATIENCE = 30
"""Seconds that an address may take to answer."""


@dataclass(frozen=True)
class Frame:
    """One picture to detect in.

    Args:
        name: the path or address of the image, or of the video and the number of the frame in it: ``a.mp4#12``.
        load: gives its pixels, ``[h, w, 3]`` uint8 RGB, turned by its EXIF orientation.
    """

    name: str
    load: Callable[[], np.ndarray]

    @property
    def stem(self) -> str:
        """A file name for what is written about it, without suffix."""
        video, _, number = self.name.rpartition("#")
        if video and number.isdecimal():
            return f"{_stem(video)}-{int(number):06d}"
        return _stem(self.name)


@dataclass(frozen=True)
class Source:
    """Frames to go through once.

    Args:
        frames: begins to go through them.
        count: how many there are, or None where that is not known beforehand.
        video: of a video or a camera: how to write another like it; None for images.
    """

    frames: Callable[[], Iterator[Frame]]
    count: int | None
    video: VideoInfo | None = None


def open_source(source: str | Path) -> Source:
    """What ``source`` names.

    Args:
        source: an image, a folder, a glob; an ``http`` or ``https`` address of an image or a video; ``-`` for an image
            on standard input; a video; the number of a camera, or its device.

    Raises:
        DataError: if there is no such thing, or it cannot be read.
        ConfigError: for a video or camera where no package reads them.
    """
    text = str(source)
    if text == STDIN:
        return _one(_of_bytes("stdin", sys.stdin.buffer.read(_LARGEST)))
    if urlparse(text).scheme in ("http", "https"):
        if Path(urlparse(text).path).suffix.lower() in VIDEO_SUFFIXES:
            return _video(text)
        return _one(_of_bytes(text, _fetched(text)))
    if text.isdecimal() or text.startswith("/dev/video"):
        info = probe(text)
        return Source(lambda: _numbered(f"camera{text.removeprefix('/dev/video')}", video_frames(text)), None, info)
    if Path(text).suffix.lower() in VIDEO_SUFFIXES and Path(text).is_file():
        return _video(text)
    paths = find_images(text)
    return Source(lambda: map(of_file, paths), len(paths))


def find_images(source: str | Path, *, key: str = "source") -> list[Path]:
    """The image files that ``source`` names, sorted.

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


def _stem(name: str) -> str:
    path = urlparse(name).path if name.startswith(("http://", "https://")) else name
    return Path(path).stem or "image"


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _one(frame: Frame) -> Source:
    return Source(lambda: iter([frame]), 1)


def of_file(path: Path) -> Frame:
    """An image file as a frame; it is read when it is asked for."""
    return Frame(str(path), lambda: load_image(path, apply_exif=True))


def _of_bytes(name: str, content: bytes) -> Frame:
    try:
        with Image.open(io.BytesIO(content)) as image:
            pixels = rgb_pixels(image, apply_exif=True)
    except UNREADABLE as error:
        raise DataError(f"source={name}: no image that can be read ({error})") from error
    return Frame(name, lambda: pixels)


def _fetched(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"User-Agent": "aegl"})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            content: bytes = answer.read(_LARGEST + 1)
    except (URLError, OSError, ValueError) as error:
        raise DataError(f"source={address}: cannot be fetched ({getattr(error, 'reason', error)})") from error
    if len(content) > _LARGEST:
        raise DataError(
            f"source={address}: longer than {_LARGEST // 1_000_000} MB; fetch it yourself, and give the file"
        )
    return content


def _video(name: str) -> Source:
    info = probe(name)
    return Source(lambda: _numbered(name, video_frames(name)), info.frames, info)


def _numbered(name: str, pixels: Iterator[np.ndarray]) -> Iterator[Frame]:
    for number, image in enumerate(pixels):
        yield Frame(f"{name}#{number}", lambda image=image: image)  # type: ignore[misc]
