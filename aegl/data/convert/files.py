"""Image files of converted data sets."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aegl.data.convert.model import Picture
from aegl.errors import ConfigError, RunError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder to write into that becomes ``output`` when all is written, and nothing if something goes wrong.

    Raises:
        ConfigError: if ``output`` exists and holds something.
        RunError: if it cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"output={output}: is there already and not empty; name a new folder")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
            folder = Path(scratch) / "new"
            folder.mkdir()
            yield folder
            folder.replace(output)
    except OSError as error:
        raise RunError(f"output={output}: cannot be written ({error.strerror or error})") from error


@contextmanager
def new_file(file: Path) -> Iterator[Path]:
    """A path to write to that becomes ``file`` when all is written, and nothing if something goes wrong.

    Raises:
        ConfigError: if ``file`` exists.
        RunError: if it cannot be written.
    """
    if file.exists():
        raise ConfigError(f"output={file.parent}: holds a {file.name} already; name another folder, or remove it")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as scratch:
            path = Path(scratch) / file.name
            yield path
            path.replace(file)
    except OSError as error:
        raise RunError(f"output={file.parent}: cannot be written ({error.strerror or error})") from error


def flat_names() -> Callable[[str], str]:
    """From paths to names for one folder: the file's own, with its folders before it where another has that name."""
    taken: set[str] = set()

    def name_for(path: str) -> str:
        name = Path(path).name
        if Path(name).stem in taken:
            name = "_".join(Path(path).parts)
        stem, number = Path(name).stem, 2
        while Path(name).stem in taken:
            name = f"{stem}_{number}{Path(name).suffix}"
            number += 1
        taken.add(Path(name).stem)
        return name

    return name_for


def link_image(picture: Picture, target: Path, left_out: Counter[str]) -> None:
    """Link ``target`` to the image's file; counts it where there is none."""
    path = picture.find()
    if path is None:
        left_out["images whose files are missing"] += 1
    else:
        target.symlink_to(path.resolve())
