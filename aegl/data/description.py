"""What a data YAML says: a shipped one of ``cfg/data`` or the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from aegl.config.hints import did_you_mean
from aegl.config.values import read_mapping, shown
from aegl.errors import DataError

SPLITS = ("train", "val")


class Archive(BaseModel):
    """A file to fetch: its address, and the folder below ``data_dir`` that it is unpacked into."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    to: str


class Description(BaseModel):
    """The keys of a data YAML; ``config`` and ``bands`` are read by :mod:`aegl.config`, as settings of the run.

    Args:
        path: folder of the data set, relative to the YAML (shipped: to ``data_dir``).
        train: annotation file of the training split, relative to ``path``.
        val: that of the val split.
        images: folder or folders of the images, relative to ``path``.
        names: class names in label order, or by label, that take the place of the files'.
        protocol: scoring rules; without, ``lvis`` where the evaluation file is federated, else ``coco``.
        generator: of an embedded data set, what makes it.
        download: what ``aegl data download`` fetches.
        bands: frequency bands.
        config: other configuration keys for this data.
        note: what to know when a file is missing.
        description: for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    path: str = "."
    train: str | None = None
    val: str | None = None
    images: str | list[str] = [".", "images"]
    names: list[str] | dict[int, str] | None = None
    protocol: Literal["lvis", "coco"] | None = None
    generator: Literal["shapes_lt"] | None = None
    download: list[Archive] = []
    bands: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    note: str | None = None
    description: str | None = None

    @property
    def files(self) -> dict[str, str]:
        """Annotation file of each split that has one."""
        return {split: file for split in SPLITS if (file := getattr(self, split))}

    @property
    def image_folders(self) -> tuple[str, ...]:
        """Folders of the images, relative to ``path``."""
        return (self.images,) if isinstance(self.images, str) else tuple(self.images)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names in label order."""
        if isinstance(self.names, dict):
            return tuple(name for _, name in sorted(self.names.items()))
        return None if self.names is None else tuple(self.names)


_ALLOWED = {
    "path": "a folder",
    "train": "one annotation file",
    "val": "one annotation file",
    "images": "a folder or a list of folders",
    "names": "a list of class names, or names by label (quote words that YAML takes for true or false)",
    "protocol": "lvis or coco",
    "download": "a list of {url, to}",
    "bands": "a group of keys",
    "config": "a group of keys",
}


def read_description(path: Path) -> Description:
    """Read a user's data YAML.

    Raises:
        ConfigError: if it cannot be read as ``key: value`` lines.
        DataError: naming every key that is unknown or holds what it cannot.
    """
    description = parse_description(read_mapping(path, f"data={path}"), f"data={path}")
    if not description.files:
        raise DataError(
            f"data={path}: must name annotation files with `train:` and `val:`, and their folder with `path:`"
        )
    return description


def parse_description(content: dict[str, Any], label: str) -> Description:
    """Check the content of a data YAML; ``label`` is how messages call it. Raises :class:`DataError`."""
    try:
        return Description.model_validate(content)
    except ValidationError as error:
        keys = dict.fromkeys(str(problem["loc"][0]) for problem in error.errors())
        raise DataError("\n".join(_problem(label, key, content[key]) for key in keys)) from None


def _problem(label: str, key: str, value: Any) -> str:
    known = Description.model_fields
    if key not in known:
        return f"{label}: {key}: unknown key{did_you_mean(key, known)}; known are {', '.join(known)}"
    return f"{label}: {key}={shown(value)}: must be {_ALLOWED.get(key, 'text')}"
