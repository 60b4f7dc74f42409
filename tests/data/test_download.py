"""Fetching from a server on this machine that can be told to misbehave."""

from __future__ import annotations

import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aegl.data.download import download
from aegl.data.source import describe_shipped
from aegl.errors import ConfigError, DataError, RunError
from aegl.progress import SilentProgress


def packed(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


ARCHIVE = packed(images__a="first" * 1000, b="second")


class Server(ThreadingHTTPServer):
    """Serves ``files`` and notes what is asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.ranges = True
        self.cut_after: int | None = None
        self.chunked = False

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path[1:], asked))
        content = self.server.files.get(self.path[1:])
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(b"40\r\nhalf" if self.server.chunked else content[start:][: self.server.cut_after])

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Bytes(SilentProgress):
    """What was said to be done, and of how much."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.steps: list[int] = []

    def start(self, name: str, total: int | None, unit: str) -> None:
        self.total = total

    def update(self, n: int = 1, **fields: float | str) -> None:
        self.steps.append(n)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        running.files["d.zip"] = ARCHIVE
        yield running
        running.shutdown()
        thread.join()


def fetch(server: Server, folder: Path, *names: str, progress: Any = None) -> list[Path]:
    entries = [{"url": server.url(name), "to": "set"} for name in names or ("d.zip",)]
    return download("mine", {"download": entries}, folder, progress or SilentProgress())


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_an_archive_is_fetched_and_unpacked(server: Server, tmp_path: Path) -> None:
    progress = Bytes()
    assert fetch(server, tmp_path, progress=progress) == [tmp_path / "set"]
    assert files(tmp_path / "set") == {"images/a", "b", ".d.zip.done"}
    assert (tmp_path / "set" / "images" / "a").read_text() == "first" * 1000
    assert progress.total == sum(progress.steps) == len(ARCHIVE)


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    server.files["e.zip"] = packed(c="third")
    assert fetch(server, tmp_path, "d.zip", "e.zip") == [tmp_path / "set"]
    assert [name for name, _ in server.asked] == ["d.zip", "e.zip"]


def test_a_plain_file_stays_as_it_is(server: Server, tmp_path: Path) -> None:
    server.files["val.json"] = b"{}"
    fetch(server, tmp_path, "val.json")
    assert (tmp_path / "set" / "val.json").read_bytes() == b"{}"


class TestResuming:
    def test_only_the_rest_is_asked_for(self, server: Server, tmp_path: Path) -> None:
        self.leave(tmp_path, ARCHIVE[:30])
        progress = Bytes()
        fetch(server, tmp_path, progress=progress)
        assert server.asked == [("d.zip", "bytes=30-")]
        assert files(tmp_path / "set") == {"images/a", "b", ".d.zip.done"}
        assert progress.total == len(ARCHIVE) and progress.steps[0] == 30 and sum(progress.steps) == len(ARCHIVE)

    def test_a_server_that_cannot_resume_sends_everything(self, server: Server, tmp_path: Path) -> None:
        server.ranges = False
        self.leave(tmp_path, b"x" * 30)
        fetch(server, tmp_path)
        assert files(tmp_path / "set") == {"images/a", "b", ".d.zip.done"}

    def test_a_complete_part_is_taken(self, server: Server, tmp_path: Path) -> None:
        self.leave(tmp_path, ARCHIVE)
        fetch(server, tmp_path)
        assert files(tmp_path / "set") == {"images/a", "b", ".d.zip.done"} and len(server.asked) == 1

    def test_a_part_too_long_is_thrown_away(self, server: Server, tmp_path: Path) -> None:
        self.leave(tmp_path, b"x" * 2 * len(ARCHIVE))
        fetch(server, tmp_path)
        assert [asked for _, asked in server.asked] == [f"bytes={2 * len(ARCHIVE)}-", None]
        assert files(tmp_path / "set") == {"images/a", "b", ".d.zip.done"}

    def test_a_connection_that_ends_early_can_be_gone_on_with(self, server: Server, tmp_path: Path) -> None:
        server.cut_after = 40
        with pytest.raises(DataError, match=rf"the connection ended after 40 of {len(ARCHIVE)} bytes\). Run the comm"):
            fetch(server, tmp_path)
        assert files(tmp_path / "set") == {"d.zip.part"}
        server.cut_after = None
        fetch(server, tmp_path)
        assert server.asked[-1] == ("d.zip", "bytes=40-")
        assert files(tmp_path / "set") == {"images/a", "b", ".d.zip.done"}

    def test_an_interruption_while_unpacking_fetches_nothing_again(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(self: zipfile.ZipFile, folder: Path) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(zipfile.ZipFile, "extractall", interrupted)
            with pytest.raises(KeyboardInterrupt):
                fetch(server, tmp_path)
        fetch(server, tmp_path)
        assert files(tmp_path / "set") == {"images/a", "b", ".d.zip.done"} and len(server.asked) == 1

    @staticmethod
    def leave(folder: Path, content: bytes) -> None:
        (folder / "set").mkdir()
        (folder / "set" / "d.zip.part").write_bytes(content)


class TestUnreachable:
    def test_not_found(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            fetch(server, tmp_path, "gone.zip")
        assert str(caught.value) == (
            f"{server.url('gone.zip')}: cannot be fetched (HTTP 404 Not Found). Run the command again to go on where "
            f"it stopped, or fetch the file by other means and unpack it into {tmp_path / 'set'}"
        )

    def test_nobody_there(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/d.zip"
            with pytest.raises(DataError, match=rf"{url}: cannot be fetched \(.*Connection refused\)"):
                download("mine", {"download": [{"url": url, "to": "set"}]}, tmp_path, SilentProgress())

    def test_a_broken_answer(self, server: Server, tmp_path: Path) -> None:
        server.chunked = True
        with pytest.raises(DataError, match=r"cannot be fetched \(IncompleteRead"):
            fetch(server, tmp_path)

    def test_no_answer_in_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aegl.data.download._TIMEOUT", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/d.zip"
            with pytest.raises(DataError, match=r"cannot be fetched \(timed out\)"):
                download("mine", {"download": [{"url": url, "to": "set"}]}, tmp_path, SilentProgress())


class TestBrokenArchives:
    @pytest.mark.parametrize("damage", ["no zip", "cut short", "bad data", "password"])
    def test_they_are_deleted_and_named(self, damage: str, server: Server, tmp_path: Path) -> None:
        server.files["d.zip"] = {
            "no zip": b"<html>please log in</html>",
            "cut short": ARCHIVE[:-30],
            "bad data": ARCHIVE[:45] + b"\xff" * 8 + ARCHIVE[53:],
            "password": _encrypted(ARCHIVE),
        }[damage]
        with pytest.raises(DataError) as caught:
            fetch(server, tmp_path)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / 'set' / 'd.zip'}: not a zip file that can be unpacked (")
        assert message.endswith("has been deleted; run the download again")
        assert not files(tmp_path / "set") & {"d.zip", "d.zip.part", ".d.zip.done"}
        server.files["d.zip"] = ARCHIVE
        fetch(server, tmp_path)
        assert files(tmp_path / "set") == {"images/a", "b", ".d.zip.done"}


class TestDisk:
    def test_a_folder_that_cannot_be_made(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "set").write_text("in the way")
        with pytest.raises(RunError, match=r"d.zip.part: cannot be written \("):
            fetch(server, tmp_path)

    def test_a_full_disk_while_unpacking(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(self: zipfile.ZipFile, folder: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
        with pytest.raises(RunError, match=r"cannot unpack d.zip \(No space left on device; \d+.\d GB free\)"):
            fetch(server, tmp_path)
        assert files(tmp_path / "set") == {"d.zip"}


def test_nothing_to_download(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data=shapes_lt: has nothing to download; shapes_lt is generated on first"):
        download("shapes_lt", describe_shipped("shapes_lt"), tmp_path, SilentProgress())


def _encrypted(archive: bytes) -> bytes:
    """With the flag set that says so, in the entries and in the directory."""
    changed = bytearray(archive)
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        found = changed.find(signature)
        while found >= 0:
            changed[found + place] |= 1
            found = changed.find(signature, found + 4)
    return bytes(changed)
