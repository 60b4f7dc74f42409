"""Fetching shipped data sets from their official addresses: resumable, unpacked, never half-written."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aegl.errors import ConfigError, DataError, RunError
from aegl.progress import Progress

_CHUNK = 1 << 20
_TIMEOUT = 30.0


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
            _fetch(entry["url"], archive, progress)
            _unpack(archive, folder)
            done.touch()
        folders.append(folder)
    return list(dict.fromkeys(folders))


def _fetch(url: str, archive: Path, progress: Progress) -> None:
    """Download to ``archive``, going on from a partial file."""
    part = archive.with_name(f"{archive.name}.part")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        offset = part.stat().st_size if part.is_file() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            resumed = offset > 0 and response.status == 206
            length = response.headers.get("Content-Length")
            total = None if length is None else int(length) + (offset if resumed else 0)
            progress.start(f"download {archive.name}", total, "byte")
            progress.update(offset if resumed else 0)
            with part.open("ab" if resumed else "wb") as file:
                while block := response.read(_CHUNK):
                    file.write(block)
                    progress.update(len(block))
            progress.finish()
    except urllib.error.HTTPError as error:
        raise _unreachable(url, archive, f"HTTP {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise _unreachable(url, archive, str(getattr(error, "reason", error))) from error
    except OSError as error:
        raise RunError(f"{part}: cannot be written ({error.strerror})") from error
    if total is not None and part.stat().st_size != total:
        raise _unreachable(url, archive, f"the connection ended after {part.stat().st_size} of {total} bytes")
    part.replace(archive)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file into ``folder`` and delete it."""
    if archive.suffix != ".zip":
        return
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        archive.unlink()
    except zipfile.BadZipFile as error:
        archive.unlink()
        raise DataError(f"{archive}: was not a zip file and has been deleted; run the download again") from error
    except OSError as error:
        free = shutil.disk_usage(folder).free / 2**30
        raise RunError(f"{folder}: cannot unpack {archive.name} ({error.strerror}; {free:.1f} GB free)") from error


def _unreachable(url: str, archive: Path, reason: str) -> DataError:
    return DataError(
        f"{url}: cannot be fetched ({reason}). Run the command again to go on where it stopped, or fetch the file by "
        f"other means and unpack it into {archive.parent}"
    )
