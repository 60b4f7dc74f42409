"""What `predict` reads, one frame at a time."""

from __future__ import annotations

import http.server
import io
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aegl.engine.sources import Frame, open_source
from aegl.engine.video import VideoWriter
from aegl.errors import ConfigError, DataError, RunError

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Four frames of one colour each, ten a second, with odd sides."""
    pytest.importorskip("av")
    writer = VideoWriter(tmp_path / "film.mp4", Fraction(10))
    for color in COLORS:
        writer.add(np.full((65, 97, 3), color, dtype=np.uint8))
    writer.close()
    return tmp_path / "film.mp4"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A folder behind an address on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_video_is_its_frames(film: Path) -> None:
    source = open_source(film)
    assert source.video is not None and source.video.rate == 10 and source.count in (4, None)
    frames = list(source.frames())
    assert [frame.name for frame in frames] == [f"{film}#{k}" for k in range(4)]
    assert [frame.stem for frame in frames][2] == "film-000002"
    for frame, color in zip(frames, COLORS, strict=True):
        pixels = frame.load()
        assert pixels.shape == (64, 96, 3)  # H.264 has even sides
        assert np.abs(pixels.astype(int).mean((0, 1)) - color).max() < 12


def test_an_address_is_fetched(served: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), (10, 20, 30)).save(tmp_path / "a.png")
    (frame,) = open_source(f"{served}/a.png?size=1").frames()
    assert frame.load().shape == (6, 8, 3) and frame.stem == "a"


def test_a_video_at_an_address(served: str, film: Path) -> None:
    assert len(list(open_source(f"{served}/film.mp4").frames())) == 4


def test_standard_input_is_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 6), (10, 20, 30)).save(content, "PNG")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content.getvalue())))
    (frame,) = open_source("-").frames()
    assert frame.load()[0, 0].tolist() == [10, 20, 30] and frame.stem == "stdin"


def test_what_cannot_be_read_is_named(served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    (tmp_path / "no.mp4").write_bytes(b"no video")
    (tmp_path / "no.png").write_bytes(b"no image")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    for source, message in {
        f"{served}/gone.png": "cannot be fetched .*404|cannot be fetched .Not Found|cannot be fetched .File not found",
        f"{served}/no.png": "no image that can be read",
        "http://127.0.0.1:1/a.png": "cannot be fetched",
        str(tmp_path / "no.mp4"): "cannot be opened",
        "97": "cannot be opened",
        str(tmp_path / "gone.mp4"): "no such file or folder",
    }.items():
        with pytest.raises(DataError, match=rf"source={source}: ({message})"):
            open_source(source)
    with pytest.raises(DataError, match="source=stdin: no image that can be read"):
        open_source("-")


def test_without_the_package_a_video_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'aegl\[video\]'"):
        open_source(tmp_path / "a.mp4")


def test_a_video_that_cannot_be_written_is_an_error_of_the_run(tmp_path: Path) -> None:
    pytest.importorskip("av")
    writer = VideoWriter(tmp_path / "gone" / "a.mp4", Fraction(5))
    with pytest.raises(RunError, match=r"gone/a\.mp4: cannot be written"):
        for _ in range(2):
            writer.add(np.zeros((64, 64, 3), dtype=np.uint8))
        writer.close()


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a/b.jpg", "b"),
        ("http://x.y/z/q.png?k=1", "q"),
        ("v.mp4#7", "v-000007"),
        ("a#b.jpg", "a#b"),
        ("a#7.jpg", "a#7"),
        ("http://x.y", "image"),
    ],
)
def test_stems(name: str, stem: str) -> None:
    assert Frame(name, lambda: np.zeros((1, 1, 3), dtype=np.uint8)).stem == stem
