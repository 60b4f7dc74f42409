"""What `data=` means: a shipped name, a YAML, a folder or a JSON, resolved to the files of its splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from aegl.config.sections import BandsSection, ShapesSection
from aegl.data.bands import Bands, class_statistics
from aegl.data.build import build_store, cache_root
from aegl.data.store import AnnotationStore
from aegl.errors import DataError

__all__ = ["DataSource", "class_statistics", "describe_shipped", "resolve_data"]

SPLITS = ("train", "val")
_KNOWN_KEYS = {
    "path", "train", "val", "images", "names", "bands", "protocol", "download", "generator", "config", "description",
}  # fmt: skip


@dataclass(frozen=True)
class DataSource:
    """A data set whose files are known.

    Args:
        name: for display and records.
        files: annotation file of each split.
        bands: frequency bands.
        image_dirs: where the images lie, besides the usual places.
        given_protocol: scoring rules that the description states, or None to go by the files.
        names: class names that take the place of the files', or None.
        remedy: what to do when a file is missing.
    """

    name: str
    files: Mapping[str, Path]
    bands: Bands
    image_dirs: tuple[Path, ...] = ()
    given_protocol: str | None = None
    names: tuple[str, ...] | None = None
    remedy: str = ""
    _opened: dict[str, AnnotationStore] = field(default_factory=dict, repr=False, compare=False)

    def open(self, split: str) -> AnnotationStore:
        """The annotations of a split. Raises :class:`DataError` if its file is missing or broken."""
        if split not in self._opened:
            file = self.files.get(split)
            if file is None:
                raise DataError(f"data={self.name}: has no {split} split; it has {', '.join(self.files) or 'none'}")
            if not file.is_file():
                raise DataError(f"data={self.name}: {file}: no such annotation file{self.remedy}")
            store = build_store(file, image_dirs=self.image_dirs)
            self._opened[split] = _renamed(store, self.names, self.name) if self.names else store
        return self._opened[split]

    @property
    def protocol(self) -> str:
        """``lvis`` or ``coco``: as described, else ``lvis`` where the evaluation file is federated."""
        if self.given_protocol is not None:
            return self.given_protocol
        return "lvis" if self.open("val" if "val" in self.files else "train").federated else "coco"


def resolve_data(data: str, *, data_dir: Path, shapes: ShapesSection, bands: BandsSection) -> DataSource:
    """Find the files of a data set.

    Args:
        data: a name of ``cfg/data``, a YAML file, a folder, or an annotation file.
        data_dir: folder below which shipped data sets lie.
        shapes: size of ``shapes_lt``.
        bands: bands asked for; those of a user's YAML hold where these are the defaults.

    Raises:
        DataError: if nothing of that name exists, or its files cannot be told.
    """
    description = _shipped(data)
    if description is not None:
        if description.get("generator") == "shapes_lt":
            return _shapes(data, shapes, bands)
        root = data_dir / description["path"]
        home = description["path"]
        remedy = f"; fetch it with `aegl data download data={data}`, or give data_dir=<folder that holds {home}>"
        return _from_description(data, description, root, bands, remedy)
    path = Path(data)
    if path.suffix in {".yaml", ".yml"}:
        return _from_yaml(path, bands)
    if path.is_dir():
        return _from_folder(path, bands)
    if path.suffix == ".json":
        return _from_json(path, bands)
    raise DataError(f"data={data}: neither a shipped data set nor a YAML, a folder or a JSON file that exists")


def describe_shipped(name: str) -> dict[str, Any]:
    """The description of a shipped data set. Raises :class:`DataError` if there is none of that name."""
    description = _shipped(name)
    if description is None:
        raise DataError(f"data={name}: not a shipped data set")
    return description


def _shipped(name: str) -> dict[str, Any] | None:
    file = resources.files("aegl.cfg") / "data" / f"{name}.yaml"
    if "/" in name or not file.is_file():
        return None
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


def _shapes(name: str, shapes: ShapesSection, bands: BandsSection) -> DataSource:
    from aegl.data.shapes_lt import generate

    folder = generate(cache_root() / "shapes_lt", **shapes.model_dump())
    files = {split: folder / f"{split}.json" for split in SPLITS}
    return DataSource(name, files, _bands(bands, None))


def _from_description(
    name: str, content: Mapping[str, Any], root: Path, bands: BandsSection, remedy: str = ""
) -> DataSource:
    files = {split: root / content[split] for split in SPLITS if content.get(split)}
    images = content.get("images", ".")
    folders = tuple(root / folder for folder in ([images] if isinstance(images, str) else images))
    names = content.get("names")
    return DataSource(
        name,
        files,
        _bands(bands, content.get("bands")),
        folders,
        content.get("protocol"),
        None if names is None else tuple(str(v) for v in (names.values() if isinstance(names, dict) else names)),
        remedy,
    )


def _from_yaml(path: Path, bands: BandsSection) -> DataSource:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"data={path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise DataError(f"data={path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or not any(content.get(split) for split in SPLITS):
        raise DataError(
            f"data={path}: must name annotation files with `train:` and `val:`, and their folder with `path:`"
        )
    unknown = sorted(set(content) - _KNOWN_KEYS)
    if unknown:
        raise DataError(f"data={path}: unknown keys {', '.join(unknown)}; known are {', '.join(sorted(_KNOWN_KEYS))}")
    if content.get("protocol") not in (None, "lvis", "coco"):
        raise DataError(f"data={path}: protocol={content['protocol']}: must be lvis or coco")
    root = path.parent / str(content.get("path", "."))
    return _from_description(path.stem, content, root, bands)


def _from_folder(folder: Path, bands: BandsSection) -> DataSource:
    found = {split: _candidates(folder, split) for split in SPLITS}
    for split, candidates in found.items():
        if len(candidates) > 1:
            listed = ", ".join(str(file.relative_to(folder)) for file in candidates)
            raise DataError(f"data={folder}: several files may be the {split} split: {listed}; name one in a data YAML")
    files = {split: candidates[0] for split, candidates in found.items() if candidates}
    if not files:
        raise DataError(
            f"data={folder}: no annotation file found; looked for train.json, val.json and "
            "annotations/*train*.json, annotations/*val*.json"
        )
    return DataSource(folder.name, files, _bands(bands, None), (folder,))


def _candidates(folder: Path, split: str) -> list[Path]:
    plain = folder / f"{split}.json"
    if plain.is_file():
        return [plain]
    places: list[Callable[[], Any]] = [
        lambda: (folder / "annotations").glob(f"*{split}*.json"),
        lambda: folder.glob(f"*{split}*.json"),
    ]
    for place in places:
        files = sorted(file for file in place() if "image_info" not in file.name and "captions" not in file.name)
        instances = [file for file in files if file.name.startswith(("instances", "lvis"))]
        if files:
            return instances or files
    return []


def _from_json(path: Path, bands: BandsSection) -> DataSource:
    """A training file with its sibling, or one file that serves as both splits."""
    if not path.is_file():
        raise DataError(f"data={path}: no such annotation file")
    sibling = path.with_name(path.name.replace("train", "val"))
    if "train" in path.name and sibling.is_file():
        return DataSource(path.stem, {"train": path, "val": sibling}, _bands(bands, None))
    return DataSource(path.stem, {"train": path, "val": path}, _bands(bands, None))


def _bands(asked: BandsSection, described: Mapping[str, Any] | None) -> Bands:
    section = BandsSection(**described) if described and asked == BandsSection() else asked
    return Bands(tuple(section.names), tuple(section.edges), section.by, section.source, section.low)


def _renamed(store: AnnotationStore, names: tuple[str, ...], data: str) -> AnnotationStore:
    if len(names) != store.num_classes:
        raise DataError(f"data={data}: names lists {len(names)} classes, {store.source} has {store.num_classes}")
    return store.with_names(names)
