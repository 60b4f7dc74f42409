"""Videos and cameras, read and written by PyAV (the extra ``video``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from aegl.errors import ConfigError, DataError, RunError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts")
_USUAL_RATE = Fraction(25)


@dataclass(frozen=True)
class VideoInfo:
    """How fast a video runs, and how long it is.

    Args:
        rate: frames per second.
        frames: number of frames as its header says, or None.
    """

    rate: Fraction
    frames: int | None


def probe(name: str) -> VideoInfo:
    """Open a video or camera and say what it is.

    Raises:
        ConfigError: if PyAV is not installed.
        DataError: if it cannot be read.
    """
    with _opened(name) as container:
        stream = container.streams.video[0]
        return VideoInfo(stream.average_rate or stream.guessed_rate or _USUAL_RATE, stream.frames or None)


def video_frames(name: str) -> Iterator[np.ndarray]:
    """``[h, w, 3]`` uint8 RGB frames of a video or camera, turned as meant to be seen. Raises :class:`DataError`."""
    av = _package()
    with _opened(name) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                pixels: np.ndarray = frame.to_ndarray(format="rgb24")
                quarter_turns = round(frame.rotation / 90) % 4
                yield np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels
        except av.FFmpegError as error:
            raise DataError(f"source={name}: cannot be read on ({error.strerror})") from error


class VideoWriter:
    """Writes frames as an MP4 file, H.264 where this build of FFmpeg has it, else MPEG-4.

    Args:
        path: the file; it appears under this name when the writer is closed.
        rate: frames per second.

    Raises:
        RunError: if it cannot be written.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._av = _package()
        self._path = path
        self._temporary = path.with_name(f".{path.name}")
        self._rate = rate
        self._container: Any = None
        self._stream: Any = None

    def add(self, pixels: np.ndarray) -> None:
        """Add a ``[h, w, 3]`` uint8 RGB frame; all have the size of the first, odd sides lose a pixel."""
        height, width = (side - side % 2 for side in pixels.shape[:2])
        try:
            if self._container is None:
                self._container = self._av.open(str(self._temporary), "w", format="mp4")
                self._stream = self._container.add_stream(self._codec(), rate=self._rate)
                self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            frame = self._av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels[: self._stream.height, : self._stream.width]), format="rgb24"
            )
            self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError) as error:
            raise RunError(f"{self._path}: cannot be written ({getattr(error, 'strerror', error)})") from error

    def close(self) -> None:
        """End the file. Raises :class:`RunError` if it cannot be written."""
        if self._container is None:
            return
        try:
            self._container.mux(self._stream.encode())
            self._container.close()
            self._temporary.replace(self._path)
        except (self._av.FFmpegError, OSError) as error:
            raise RunError(f"{self._path}: cannot be written ({getattr(error, 'strerror', error)})") from error

    def _codec(self) -> str:
        return "libx264" if "libx264" in self._av.codecs_available else "mpeg4"


def _opened(name: str) -> Any:
    av = _package()
    device = f"/dev/video{name}" if name.isdecimal() else name
    try:
        container = av.open(device, format="v4l2" if device.startswith("/dev/video") else None)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"source={name}: cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    if not container.streams.video:
        container.close()
        raise DataError(f"source={name}: holds no video")
    return container


def _package() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ConfigError("source: to read videos and cameras install PyAV: pip install 'aegl[video]'") from error
    return av
