"""Fetching shipped data sets from their official addresses: resumable, unpacked, never half-written."""

from __future__ import annotations

import http.client
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aegl.errors import ConfigError, DataError, RunError
from aegl.progress import Progress

_CHUNK = 1 << 20
_TIMEOUT = 30.0
# What zipfile raises on archives that are broken in one way or another (or encrypted, or packed in an unknown way).
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def download(name: str, description: Mapping[str, Any], data_dir: Path, progress: Progress) -> list[Path]:
    """Fetch and unpack everything that a data set's description lists; what is there already is left alone.

    Args:
        name: of the data set.
        description: with ``download``, a list of ``{url, to}``.
        data_dir: folder below which data sets lie.
        progress: told of the bytes.

    Returns:
        The folders that files were unpacked into.

    Raises:
        ConfigError: if the data set has nothing to download.
        DataError: if an address cannot be reached, naming what to fetch by other means and where to put it.
        RunError: if the disk refuses.
    """
    entries = description.get("download") or []
    if not entries:
        raise ConfigError(f"data={name}: has nothing to download; shapes_lt is generated on first use")
    folders = []
    for entry in entries:
        folder = data_dir / entry["to"]
        archive = folder / entry["url"].rsplit("/", 1)[-1]
        done = archive.with_name(f".{archive.name}.done")
        if not done.is_file():
            if not archive.is_file():  # it is, complete, where unpacking was interrupted
                _fetch(entry["url"], archive, progress)
            _unpack(archive, folder, done)
        folders.append(folder)
    return list(dict.fromkeys(folders))


def _fetch(url: str, archive: Path, progress: Progress) -> None:
    """Download to ``archive``, going on from a partial file."""
    part = archive.with_name(f"{archive.name}.part")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        response = _open(url, part)
        if response is not None:
            with response:
                total = _receive(response, part, archive.name, progress)
            if total is not None and part.stat().st_size != total:
                reason = f"the connection ended after {part.stat().st_size} of {total} bytes"
                raise _unreachable(url, archive, reason)
        part.replace(archive)
    except urllib.error.HTTPError as error:
        raise _unreachable(url, archive, f"HTTP {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _unreachable(url, archive, str(getattr(error, "reason", error))) from error
    except OSError as error:
        raise RunError(f"{part}: cannot be written ({error.strerror})") from error


def _open(url: str, part: Path) -> http.client.HTTPResponse | None:
    """The response with what ``part`` lacks, or with everything; None if ``part`` is the whole file already."""
    offset = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        return _urlopen(request)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{offset}":
            return None
    part.unlink()  # longer than the file: of something else
    return _urlopen(urllib.request.Request(url))


def _urlopen(request: urllib.request.Request) -> http.client.HTTPResponse:
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    return response


def _receive(response: http.client.HTTPResponse, part: Path, name: str, progress: Progress) -> int | None:
    """Write a response to ``part``; the length that the whole file should have, if the server says."""
    offset = part.stat().st_size if response.status == http.client.PARTIAL_CONTENT else 0
    length = response.headers.get("Content-Length")
    total = None if length is None else int(length) + offset
    progress.start(f"download {name}", total, "byte")
    progress.update(offset)
    with part.open("ab" if offset else "wb") as file:
        while block := response.read(_CHUNK):
            file.write(block)
            progress.update(len(block))
    progress.finish()
    return total


def _unpack(archive: Path, folder: Path, done: Path) -> None:
    """Unpack a zip file into ``folder`` and delete it; leave a mark that this is done."""
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)
        done.touch()
        if archive.suffix == ".zip":
            archive.unlink()
    except _BROKEN_ZIP as error:
        archive.unlink()
        raise DataError(
            f"{archive}: not a zip file that can be unpacked ({error}), and has been deleted; run the download again"
        ) from error
    except OSError as error:
        free = shutil.disk_usage(folder).free / 2**30
        raise RunError(f"{folder}: cannot unpack {archive.name} ({error.strerror}; {free:.1f} GB free)") from error


def _unreachable(url: str, archive: Path, reason: str) -> DataError:
    return DataError(
        f"{url}: cannot be fetched ({reason}). Run the command again to go on where it stopped, or fetch the file by "
        f"other means and unpack it into {archive.parent}"
    )
