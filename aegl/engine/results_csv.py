"""``results.csv``: one row per log record or evaluation, appended as training goes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aegl.engine.runs import write_text
from aegl.errors import RunError

KEY = "iteration"


class ResultsCsv:
    """A CSV file whose header never changes.

    Args:
        path: the file; an existing one is continued, without its rows after iteration ``keep_until``, so that a resumed
            run does not show the steps between its checkpoint and its death twice.
        keep_until: last iteration whose rows stay.
    """

    def __init__(self, path: Path, *, keep_until: int = 0) -> None:
        self.path = path
        self._columns: list[str] | None = None
        if path.is_file():
            self._columns = self._truncate(keep_until)

    def append(self, row: Mapping[str, Any], *, columns: Sequence[str]) -> None:
        """Add one row; absent values stay empty.

        Args:
            row: values by column; floats are written with six significant digits.
            columns: the header, used if the file is new.

        Raises:
            RunError: for a value without a column, or when the file cannot be written.
        """
        try:
            if self._columns is None:
                self._columns = list(columns)
                self.path.write_text(",".join(self._columns) + "\n", encoding="utf-8")
            unknown = [key for key in row if key not in self._columns]
            if unknown:
                raise RunError(f"{self.path}: has no column for {', '.join(unknown)}; move the file away and resume")
            with self.path.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow([_text(row.get(name)) for name in self._columns])
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _truncate(self, keep_until: int) -> list[str] | None:
        lines = self.path.read_text(encoding="utf-8").splitlines()
        if not lines:
            return None
        header = next(csv.reader(lines[:1]))
        if KEY not in header:
            raise RunError(
                f"{self.path}: its first line has no column {KEY}, so it is not ours; move it away and resume"
            )
        column = header.index(KEY)
        rows = [line for line in lines[1:] if _iteration(line, column, len(header)) <= keep_until]
        write_text(self.path, "\n".join([lines[0], *rows]) + "\n")
        return header


def _iteration(line: str, column: int, width: int) -> float:
    """Iteration of a row; a row cut short by a kill counts as after everything."""
    cells = next(csv.reader([line]), [])
    return int(cells[column]) if len(cells) == width and cells[column].isdigit() else float("inf")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
