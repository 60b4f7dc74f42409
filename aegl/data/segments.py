"""Objects cut out of their images, in a folder: ``<category id>/<any name>.png``, RGBA, with the mask as alpha."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from aegl.data.categories import CategoryTable
from aegl.data.preprocess import UNREADABLE
from aegl.errors import ConfigError, DataError
from aegl.progress import Progress

OPAQUE = 128
"""Alpha from which a pixel belongs to the object."""
_WITH_ALPHA = ("RGBA", "LA", "PA")
_LISTED = 5
_TELL_EVERY = 100


@dataclass(frozen=True)
class SegmentFolder:
    """The segments that can be pasted, and how often each class is drawn.

    Args:
        folder: that holds them.
        names: ``[S]`` text, paths below the folder, class by class. An array and no list: it is shared by all workers.
        labels: ``[K]`` int64, classes that have segments, rising.
        offsets: ``[K + 1]`` int64, where the segments of each begin.
        probabilities: ``[K]`` float64, of drawing each class.
    """

    folder: Path
    names: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    probabilities: np.ndarray

    def __len__(self) -> int:
        """Number of segments ``S``."""
        return len(self.names)

    def draw(self, rng: np.random.Generator) -> int:
        """Number of a segment: a class by its probability, then one of its segments, uniformly."""
        row = int(rng.choice(len(self.labels), p=self.probabilities))
        return int(rng.integers(self.offsets[row], self.offsets[row + 1]))

    def label_of(self, segment: int) -> int:
        """Class of a segment."""
        return int(self.labels[np.searchsorted(self.offsets, segment, side="right") - 1])

    def load(self, segment: int) -> np.ndarray:
        """Pixels of a segment, ``[h, w, 4]`` uint8 RGBA, cut to what is not wholly transparent.

        Raises:
            DataError: if the file cannot be used.
        """
        path = self.folder / str(self.names[segment])
        try:
            return read_segment(path)
        except ValueError as error:
            raise DataError(f"segment {path}: {error}") from None

    def check(self, workers: int, progress: Progress) -> None:
        """Read every segment once.

        Args:
            workers: threads to read in.
            progress: told how far it is.

        Raises:
            DataError: naming the files that cannot be used, and why.
        """
        progress.start("check the segments", len(self), "segment")
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            problems = []
            for done, problem in enumerate(pool.map(self._problem, range(len(self))), start=1):
                if problem is not None:
                    problems.append(problem)
                if done % _TELL_EVERY == 0:
                    progress.update(_TELL_EVERY)
        progress.update(len(self) % _TELL_EVERY)
        progress.finish()
        _refuse(self.folder, problems)

    def _problem(self, segment: int) -> str | None:
        try:
            read_segment(self.folder / str(self.names[segment]))
        except ValueError as error:
            return f"{self.names[segment]} {error}"
        return None


def open_segments(folder: Path, categories: CategoryTable, image_counts: np.ndarray) -> SegmentFolder:
    """Find the segments of a folder; reads none of them. What begins with a dot is left alone.

    A class is drawn with a probability proportional to 1 over its training images (at least 1), among those that have a
    segment.

    Args:
        folder: holds one folder per class, named by its category id.
        categories: the classes.
        image_counts: ``[C]`` training images that contain each class.

    Raises:
        ConfigError: if there is no such folder.
        DataError: if it holds anything else, or no segment.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"paste.folder={folder}: no such folder; `aegl data segments data=... output={folder}` cuts one out of a "
            "data set's own annotations"
        )
    problems: list[str] = []
    found: dict[int, list[str]] = {}
    for place in _entries(folder):
        label = _label(place.name, categories)
        if not place.is_dir():
            problems.append(f"{place.name} is a file where only folders of classes should be")
        elif label is None:
            problems.append(f"{place.name} is not the id of a category of the data set")
        else:
            files = list(_entries(place))
            problems += [f"{place.name}/{file.name} is no PNG" for file in files if file.suffix.lower() != ".png"]
            found.setdefault(label, []).extend(f"{place.name}/{file.name}" for file in files)
    _refuse(folder, problems)
    labels = np.array(sorted(label for label, names in found.items() if names), dtype=np.int64)
    if not len(labels):
        raise DataError(f"paste.folder={folder}: holds no segment; expected are <category id>/<name>.png")
    weights = 1 / np.maximum(image_counts[labels], 1)
    return SegmentFolder(
        folder,
        np.array([name for label in labels.tolist() for name in found[label]]),
        labels,
        np.cumsum([0, *(len(found[label]) for label in labels.tolist())]),
        weights / weights.sum(),
    )


def read_segment(path: Path) -> np.ndarray:
    """Pixels of a segment's file, ``[h, w, 4]`` uint8 RGBA, cut to what is not wholly transparent.

    Raises:
        ValueError: saying why it cannot be used, to go on from the file's name.
    """
    image = _read(path)
    if image.mode not in _WITH_ALPHA and "transparency" not in image.info:
        raise ValueError("has no alpha channel, which should hold the mask")
    pixels = np.asarray(image.convert("RGBA"))
    if not (pixels[..., 3] >= OPAQUE).any():
        raise ValueError("is empty: no pixel is opaque")
    rows, columns = (np.flatnonzero(pixels[..., 3].any(axis=axis)) for axis in (1, 0))
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise ValueError("does not exist") from None
    except UNREADABLE as error:
        raise ValueError(f"cannot be read ({error})") from error


def _entries(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _label(name: str, categories: CategoryTable) -> int | None:
    """The class of a folder; None where its name is no category id."""
    if not name.isascii() or not name.removeprefix("-").isdigit() or str(int(name)) != name:
        return None
    label = int(categories.labels_of(np.array([int(name)]))[0])
    return None if label < 0 else label


def _refuse(folder: Path, problems: list[str]) -> None:
    if problems:
        shown = "; ".join(problems[:_LISTED])
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise DataError(f"paste.folder={folder}: {shown}{more}")
