"""The class table of a data set: what each label means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CategoryTable:
    """Classes in label order, which is the order of their ids.

    Args:
        ids: ``[C]`` int64, ids of the annotation file, rising.
        names: ``C`` names.
        frequency: ``C`` band names of the file (LVIS: r, c, f), or None.
        image_counts: ``[C]`` int64 training images per class as the file states them, or None.
        instance_counts: ``[C]`` int64 training instances per class as the file states them, or None.
        supercategories: ``C`` names of what each class is a kind of, or None.
    """

    ids: np.ndarray
    names: tuple[str, ...]
    frequency: tuple[str, ...] | None = None
    image_counts: np.ndarray | None = None
    instance_counts: np.ndarray | None = None
    supercategories: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Number of classes ``C``."""
        return len(self.ids)

    def labels_of(self, ids: np.ndarray) -> np.ndarray:
        """Labels ``0..C-1`` (int64) of category ids; -1 for unknown ones."""
        if not len(self.ids):
            return np.full(len(ids), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, place, -1).astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "ids": self.ids.tolist(),
            "names": list(self.names),
            "frequency": None if self.frequency is None else list(self.frequency),
            "image_counts": None if self.image_counts is None else self.image_counts.tolist(),
            "instance_counts": None if self.instance_counts is None else self.instance_counts.tolist(),
            "supercategories": None if self.supercategories is None else list(self.supercategories),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CategoryTable:
        """Inverse of :meth:`to_dict`."""
        return cls(
            np.asarray(values["ids"], dtype=np.int64),
            tuple(values["names"]),
            _names(values["frequency"]),
            _counts(values["image_counts"]),
            _counts(values["instance_counts"]),
            _names(values["supercategories"]),
        )

    @classmethod
    def from_records(cls, records: Sequence[dict[str, Any]]) -> CategoryTable:
        """From the ``categories`` of an annotation file; a field counts only if every class has it."""
        ordered = sorted(records, key=lambda record: record["id"])

        def column(key: str) -> list[Any] | None:
            values = [record.get(key) for record in ordered]
            return None if not values or any(value is None for value in values) else values

        names = (record["id"] if record.get("name") is None else record["name"] for record in ordered)
        return cls(
            np.asarray([record["id"] for record in ordered], dtype=np.int64),
            tuple(str(name) for name in names),
            _names(column("frequency")),
            _counts(column("image_count")),
            _counts(column("instance_count")),
            _names(column("supercategory")),
        )


def _counts(values: list[int] | None) -> np.ndarray | None:
    return None if values is None else np.asarray(values, dtype=np.int64)


def _names(values: list[Any] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(str(value) for value in values)
