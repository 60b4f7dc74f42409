"""From ids of a file to rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np


class Ids:
    """Rows of ids.

    Args:
        key: what a file calls them.
        ids: ``[N]`` integers, the id of each row.
    """

    def __init__(self, key: str, ids: Any) -> None:
        self.key = key
        ids = np.asarray(ids, dtype=np.int64)
        self._order = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]
        self._row: dict[float, int] = {known: row for row, known in enumerate(ids.tolist())}

    def row(self, value: Any) -> int | None:
        """Row of an id as a file may give it, None if there is none."""
        return self._row.get(value) if isinstance(value, int | float) else None

    def rows(self, values: np.ndarray) -> np.ndarray:
        """Rows of ``[n]`` int64 ids; ``ValueError`` if one is unknown."""
        place = np.searchsorted(self._sorted, values)
        if len(values) and (place.max() >= len(self._sorted) or (self._sorted[place] != values).any()):
            raise ValueError(f"unknown {self.key}")
        return np.asarray(self._order[place])
