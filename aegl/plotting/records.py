"""What a run's folder holds for figures, read when asked for."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from aegl.engine import runs
from aegl.errors import DataError


class UnavailableError(DataError):
    """A figure cannot be drawn from what is there; the message says what would make it possible."""


@dataclass(frozen=True)
class RunRecord:
    """A run of `train` or `val`.

    Args:
        folder: of the run.
        name: how figures call it.
    """

    folder: Path
    name: str

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """``metrics.json``. Raises :class:`UnavailableError` where the run was never evaluated."""
        file = self._file(runs.METRICS_FILE, "the run was never evaluated: `aegl val weights=...` makes such a folder")
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UnavailableError(f"{file}: cannot be read ({error})") from error
        return content

    @cached_property
    def curves(self) -> Mapping[str, np.ndarray]:
        """``pr_curves.npz``. Raises :class:`UnavailableError` where there is none."""
        file = self._file(runs.CURVES_FILE, "the run was never evaluated")
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    @cached_property
    def results(self) -> Mapping[str, list[float | None]]:
        """Numeric columns of ``results.csv``. Raises :class:`UnavailableError` where there is none: a run of `val`."""
        rows = self._rows(runs.RESULTS_FILE, "only runs of `aegl train` have one")
        return {name: [_number(row.get(name)) for row in rows] for name in (rows[0] if rows else ())}

    @cached_property
    def gradients(self) -> Mapping[str, np.ndarray]:
        """Columns of ``gradients.csv``. Raises :class:`UnavailableError` where there is none."""
        rows = self._rows(runs.GRADIENTS_FILE, "train with track_gradients=true")
        names = ("instances", "negative_foreground", "negative_background")
        return {name: np.array([_number(row[name]) or 0.0 for row in rows]) for name in names}

    @cached_property
    def examples(self) -> Mapping[str, list[dict[str, Any]]]:
        """``examples.json``. Raises :class:`UnavailableError` where there is none."""
        file = self._file(runs.EXAMPLES_FILE, "the run was evaluated by an older version; evaluate it again")
        content: dict[str, list[dict[str, Any]]] = json.loads(file.read_text(encoding="utf-8"))
        return content

    @property
    def band_names(self) -> tuple[str, ...]:
        """Frequency bands, rarest first."""
        return tuple(self.metrics["bands"])

    @property
    def class_band(self) -> np.ndarray:
        """``[C]`` index of each class into :attr:`band_names`."""
        return np.array([self.band_names.index(band) for band in self.metrics["per_class"]["band"]], dtype=np.int64)

    @property
    def train_instances(self) -> np.ndarray:
        """``[C]`` training instances. Raises :class:`UnavailableError` where the evaluation did not know them."""
        counts = self.metrics["per_class"]["train_instances"]
        if any(count is None for count in counts):
            raise UnavailableError(f"{self.folder}: was evaluated without the training split, so no counts are known")
        return np.array(counts, dtype=np.int64)

    def class_ap(self, kind: str) -> np.ndarray:
        """``[C]`` AP in [0, 1], NaN: nothing to be found. Raises :class:`UnavailableError` without that kind."""
        column = self.metrics["per_class"].get(f"{kind}_AP")
        if column is None:
            raise UnavailableError(f"{self.folder}: has no figures of {kind}")
        return np.array([np.nan if value is None else value for value in column])

    @property
    def kind(self) -> str:
        """``mask`` where masks were scored, else ``box``."""
        return "mask" if self.metrics.get("mask") else "box"

    def _file(self, name: str, remedy: str) -> Path:
        file = self.folder / name
        if not file.is_file():
            raise UnavailableError(f"{file}: is not there; {remedy}")
        return file

    def _rows(self, name: str, remedy: str) -> list[dict[str, str]]:
        with self._file(name, remedy).open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))


def open_records(folders: list[str]) -> list[RunRecord]:
    """The runs, named by the shortest ends of their paths that tell them apart.

    Raises:
        DataError: for a folder that is none of a run.
    """
    paths = [Path(folder).absolute() for folder in folders]
    for path, given in zip(paths, folders, strict=True):
        if not any((path / name).is_file() for name in (runs.ARGS_FILE, runs.METRICS_FILE)):
            raise DataError(f"runs={given}: no run's folder: it holds neither {runs.ARGS_FILE} nor {runs.METRICS_FILE}")
    depth = next(
        (n for n in range(1, 8) if len({path.parts[-n:] for path in paths}) == len(paths)),
        8,
    )
    return [RunRecord(path, "/".join(path.parts[-depth:])) for path in paths]


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:  # protocol, split, hash
        return None
