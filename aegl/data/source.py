"""What `data=` means: a shipped name, a YAML, a folder or a JSON, resolved to the files of its splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from aegl.config import shipped
from aegl.config.sections import BandsSection, ShapesSection
from aegl.data.bands import Bands, bands_without_training_set, class_statistics
from aegl.data.build import build_store, cache_root, writing_cache
from aegl.data.description import SPLITS, Description, parse_description, read_description
from aegl.data.foreign import Layout, layout_of, rewrite
from aegl.data.store import AnnotationStore
from aegl.errors import DataError
from aegl.longtail.statistics import ClassStatistics
from aegl.progress import Progress, SilentProgress

__all__ = ["DataSource", "class_statistics", "describe_shipped", "require_same_classes", "resolve_data"]

ANNOTATIONS = "annotations"
"""Folder of COCO's annotation files; their images lie beside it."""
_SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid")}
_OTHER_FILES = ("image_info", "captions")
"""How names of COCO's files begin that hold no instances."""


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
        progress: told how far the first reading of a file is.
    """

    name: str
    files: Mapping[str, Path]
    bands: Bands
    image_dirs: tuple[Path, ...] = ()
    given_protocol: str | None = None
    names: tuple[str, ...] | None = None
    remedy: str = ""
    progress: Progress = field(default_factory=SilentProgress, repr=False, compare=False)
    _opened: dict[str, AnnotationStore] = field(default_factory=dict, repr=False, compare=False)

    def open(self, split: str) -> AnnotationStore:
        """The annotations of a split. Raises :class:`DataError` if its file is missing or broken."""
        if split not in self._opened:
            file = self.files.get(split)
            if file is None:
                there = ", ".join(self.files)
                raise DataError(f"data={self.name}: has no {split} split; it has {there}; `aegl data split` parts one")
            if not file.is_file():
                raise DataError(f"data={self.name}: {file}: no such annotation file{self.remedy}")
            store = build_store(file, image_dirs=self.image_dirs, progress=self.progress)
            self._opened[split] = _renamed(store, self.names, self.name) if self.names else store
        return self._opened[split]

    def class_band(self, split: str) -> np.ndarray:
        """``[C]`` int64 frequency band of each class: by the training split, or without one as far as the file tells.

        Raises:
            DataError: if a file is missing or broken, or the splits have different classes.
        """
        statistics = self.training_statistics(split)
        return bands_without_training_set(self.open(split), self.bands) if statistics is None else statistics.class_band

    def training_statistics(self, split: str) -> ClassStatistics | None:
        """Counts and bands of the training split, None where its file is not there; the classes must be ``split``'s.

        Raises:
            DataError: if a file is broken, or the splits have different classes.
        """
        train_file = self.files.get("train")
        # A lone file that serves as both splits may be of any split.
        if train_file is None or train_file == self.files.get("val") or not train_file.is_file():
            return None
        require_same_classes(self.open("train"), self.open(split))
        return class_statistics(self.open("train"), self.bands)

    @property
    def protocol(self) -> str:
        """``lvis`` or ``coco``: as described, else ``lvis`` where the evaluation file is federated."""
        if self.given_protocol is not None:
            return self.given_protocol
        return "lvis" if self.open("val" if "val" in self.files else "train").federated else "coco"


def resolve_data(
    data: str, *, data_dir: Path, shapes: ShapesSection, bands: BandsSection, progress: Progress | None = None
) -> DataSource:
    """Find the files of a data set.

    Args:
        data: a name of ``cfg/data``, a YAML file, a folder in the layout of COCO, LVIS, YOLO or VOC, or an annotation
            file.
        data_dir: folder below which shipped data sets lie.
        shapes: size of ``shapes_lt``.
        bands: frequency bands; those that a data YAML states reach this by way of the configuration.
        progress: told how far the first reading of a file is.

    Raises:
        DataError: if nothing of that name exists, or its files cannot be told.
    """
    source = _resolve(data, data_dir, shapes, _bands(bands), progress or SilentProgress())
    return source if progress is None else replace(source, progress=progress)


def _resolve(data: str, data_dir: Path, shapes: ShapesSection, bands: Bands, progress: Progress) -> DataSource:
    if data in shipped.available("data"):
        return _from_shipped(data, data_dir, shapes, bands)
    path = Path(data)
    if path.suffix in {".yaml", ".yml"}:
        if path.is_file() and (layout := layout_of(path)):
            return _from_foreign(path, layout, bands, progress)
        description = read_description(path)
        return _from_description(path.stem, description, path.parent / description.path, bands)
    if path.is_dir():
        return _from_folder(path, bands, progress)
    if path.suffix == ".json":
        return _from_json(path, bands)
    raise DataError(f"data={data}: neither a shipped data set nor a YAML, a folder or a JSON file that exists")


def require_same_classes(train: AnnotationStore, other: AnnotationStore) -> None:
    """Raise :class:`DataError` where two splits do not list the same categories."""
    ids, other_ids = train.categories.ids, other.categories.ids
    if not np.array_equal(ids, other_ids):
        raise DataError(
            f"{other.source}: its {len(other_ids)} category ids are not the {len(ids)} of {train.source}: both files "
            "must list the same categories"
        )


def describe_shipped(name: str) -> dict[str, Any]:
    """The description of a shipped data set. Raises :class:`DataError` if there is none of that name."""
    if name not in shipped.available("data"):
        names = ", ".join(shipped.available("data"))
        raise DataError(f"data={name}: not a data set that comes with aegl; those are {names}")
    return shipped.read("data", name)


def _bands(section: BandsSection) -> Bands:
    return Bands(tuple(section.names), tuple(section.edges), section.by, section.source, section.low)


def _from_shipped(name: str, data_dir: Path, shapes: ShapesSection, bands: Bands) -> DataSource:
    description = parse_description(describe_shipped(name), shipped.origin("data", name))
    if description.generator == "shapes_lt":
        from aegl.data.shapes_lt import generate

        root = cache_root() / "shapes_lt"
        with writing_cache(root):
            folder = generate(root, **shapes.model_dump())
        return DataSource(name, {split: folder / f"{split}.json" for split in SPLITS}, bands)
    home = description.path
    remedy = f"; fetch it with `aegl data download data={name}`, or give data_dir=<folder that holds {home}>"
    if description.note:
        remedy += f". {description.note}"
    return _from_description(name, description, data_dir / home, bands, remedy)


def _from_description(name: str, description: Description, root: Path, bands: Bands, remedy: str = "") -> DataSource:
    return DataSource(
        name,
        {split: root / file for split, file in description.files.items()},
        bands,
        tuple(root / folder for folder in description.image_folders),
        description.protocol,
        description.class_names,
        remedy,
    )


def _from_folder(folder: Path, bands: Bands, progress: Progress) -> DataSource:
    found = {split: _candidates(folder, split) for split in SPLITS}
    for split, candidates in found.items():
        if len(candidates) > 1:
            listed = ", ".join(str(file.relative_to(folder)) for file in candidates)
            raise DataError(f"data={folder}: several files may be the {split} split: {listed}; name one in a data YAML")
    files = {split: candidates[0] for split, candidates in found.items() if candidates}
    if files:
        return DataSource(folder.resolve().name, files, bands, _image_dirs(folder))
    if layout := layout_of(folder):
        return _from_foreign(folder, layout, bands, progress)
    raise DataError(
        f"data={folder}: no annotations found; looked for COCO's or LVIS's (train.json, val.json, *train*.json, "
        f"*val*.json, there and in {ANNOTATIONS}/, or a JSON in train/ and in val/ or valid/), for YOLO's (a YAML with "
        "names and train) and for VOC's (a folder Annotations)"
    )


def _candidates(folder: Path, split: str) -> list[Path]:
    plain = folder / f"{split}.json"
    if plain.is_file():
        return [plain]
    for place in (folder / ANNOTATIONS, folder):
        files = sorted(file for file in place.glob(f"*{split}*.json") if not file.name.startswith(_OTHER_FILES))
        if files:
            return [file for file in files if file.name.startswith(("instances", "lvis"))] or files
    # Annotation tools export a folder for each split, with the images and their one JSON in it.
    return [file for name in _SPLIT_FOLDERS[split] for file in sorted((folder / name).glob("*.json"))]


def _from_foreign(place: Path, layout: Layout, bands: Bands, progress: Progress) -> DataSource:
    copy = rewrite(place, layout, progress)
    name = place.stem if place.is_file() else place.resolve().name
    return DataSource(name, copy.files, bands, copy.image_dirs)


def _from_json(path: Path, bands: Bands) -> DataSource:
    """A training file with its sibling, or one file that serves as both splits."""
    if not path.is_file():
        raise DataError(f"data={path}: no such annotation file")
    sibling = path.with_name(path.name.replace("train", "val"))
    val = sibling if sibling.is_file() else path
    beside = path.absolute().parent
    folders = _image_dirs(beside.parent) if beside.name == ANNOTATIONS else ()
    return DataSource(path.stem, {"train": path, "val": val}, bands, folders)


def _image_dirs(folder: Path) -> tuple[Path, ...]:
    return (folder, folder / "images")


def _renamed(store: AnnotationStore, names: tuple[str, ...], data: str) -> AnnotationStore:
    if len(names) != store.num_classes:
        raise DataError(f"data={data}: names lists {len(names)} classes, {store.source} has {store.num_classes}")
    return store.with_names(names)
