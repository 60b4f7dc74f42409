"""``results.csv``: one row per log record or evaluation, appended as training goes."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aegl.engine.runs import write_text
from aegl.errors import RunError

LOGGER = logging.getLogger("aegl")

KEY = "iteration"
EVALUATION = "protocol"
"""Column that only the rows of evaluations fill."""
KINDS = ("box", "mask")
"""What is evaluated; figures stand in columns ``<kind>/<figure>``."""


class ResultsCsv:
    """A CSV file whose header never changes.

    Rows that the disk refuses are kept and written with the next one: a full disk costs no training.

    Args:
        path: the file; an existing one is continued, without its rows after iteration ``keep_until``, so that a resumed
            run does not show the steps between its checkpoint and its death twice.
        keep_until: last iteration whose rows stay.
        evaluated_until: the same for rows of evaluations; None: as ``keep_until``.
    """

    def __init__(self, path: Path, *, keep_until: int = 0, evaluated_until: int | None = None) -> None:
        self.path = path
        self._columns: list[str] | None = None
        self._is_continued = False
        self._dropped: set[str] = set()
        self._unwritten: list[str] = []
        if path.is_file():
            self._columns = self._truncate(keep_until, keep_until if evaluated_until is None else evaluated_until)
            self._is_continued = self._columns is not None

    def append(self, row: Mapping[str, Any], *, columns: Sequence[str]) -> None:
        """Add one row; absent values stay empty, and one warning says what a file that was continued has no column for.

        Args:
            row: values by column; floats are written with six significant digits.
            columns: the header, used if the file is new.

        Raises:
            RunError: for a value without a column, in a file begun by this object.
        """
        if self._columns is None:
            self._columns = list(columns)
            self._unwritten.append(_line(self._columns))
        unknown = [key for key in row if key not in self._columns and key not in self._dropped]
        if unknown:
            self._drop(unknown)
        self._unwritten.append(_line([_text(row.get(name)) for name in self._columns]))
        try:
            self.flush()
        except RunError as error:
            LOGGER.warning("%s. Its rows are kept in memory and written with the next ones", error)

    def flush(self) -> None:
        """Write the rows that have not been written yet.

        Raises:
            RunError: when the file cannot be written.
        """
        if not self._unwritten:
            return
        size = None
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                size = os.fstat(file.fileno()).st_size
                file.write("".join(self._unwritten))
        except OSError as error:
            with contextlib.suppress(OSError):
                if size is not None:  # half a row may have got through
                    os.truncate(self.path, size)
            raise RunError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._unwritten.clear()

    def _drop(self, unknown: Sequence[str]) -> None:
        """Leave out what another version of aegl did not write when it began the file."""
        if not self._is_continued:
            raise RunError(f"{self.path}: has no column for {', '.join(unknown)}")
        LOGGER.warning("%s: was begun without columns for %s, which are left out", self.path, ", ".join(unknown))
        self._dropped.update(unknown)

    def _truncate(self, keep_until: int, evaluated_until: int) -> list[str] | None:
        lines = self.path.read_text(encoding="utf-8").splitlines()
        if not lines:
            return None
        header = next(csv.reader(lines[:1]))
        if KEY not in header:
            raise RunError(
                f"{self.path}: its first line has no column {KEY}, so it is not ours; move it away and resume"
            )
        kept = [lines[0]]
        for line in lines[1:]:
            row = dict(zip(header, next(csv.reader([line]), []), strict=False))
            iteration = _iteration(row, len(header))
            if iteration <= (evaluated_until if row.get(EVALUATION) else keep_until):
                kept.append(line)
        write_text(self.path, "\n".join(kept) + "\n")
        return header


def evaluations(path: Path) -> list[tuple[int, dict[str, dict[str, float]]]]:
    """The evaluations that a results file tells of, in its order.

    Returns:
        Iteration and figures by kind, ``{"box": {"AP": 0.5}, "mask": {}}``, in [0, 1] with six significant digits.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(EVALUATION) and _iteration(row, len(row)) < float("inf")]
    return [(int(row[KEY]), {kind: _figures(row, kind) for kind in KINDS}) for row in rows]


def rounded(value: float) -> float:
    """A figure as it comes back from the file."""
    return float(_text(value))


def last_iteration(path: Path) -> int | None:
    """The last iteration that a results file tells of; None if there is none."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        reached = [_iteration(row, len(row)) for row in csv.DictReader(file)]
    return int(max((each for each in reached if each < float("inf")), default=0)) or None


def _figures(row: Mapping[str, str], kind: str) -> dict[str, float]:
    return {name[len(kind) + 1 :]: float(text) for name, text in row.items() if name.startswith(f"{kind}/") and text}


def _iteration(row: Mapping[str, str], width: int) -> float:
    """Iteration of a row; a row cut short by a kill counts as after everything."""
    value = row.get(KEY) or ""
    return int(value) if len(row) == width and value.isdigit() else float("inf")


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
