"""How the library tells whoever runs it how far it is; it never prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Figures = Mapping[str, Mapping[str, float | None]]
"""Figures in [0, 1] by row and column, ``{"mask": {"AP": 0.25, "APr": None}}``; None where there is none."""


class Progress(Protocol):
    """One bar at a time, and messages beside it."""

    def start(self, name: str, total: int | None, unit: str) -> None:
        """Begin work of ``total`` units (None if unknown)."""

    def update(self, n: int = 1, **fields: float | str) -> None:
        """``n`` more units are done; ``fields`` are the newest figures to show, those that matter most first."""

    def message(self, text: str) -> None:
        """Say something worth a line. What may be wrong is no message but a warning in the log."""

    def figures(self, title: str, figures: Figures, before: Figures) -> None:
        """Show a small table, and how it has changed from ``before`` (empty: nothing to compare with)."""

    def finish(self) -> None:
        """The work begun last is done."""


class SilentProgress:
    """Shows nothing."""

    def start(self, name: str, total: int | None, unit: str) -> None:
        """See :class:`Progress`."""

    def update(self, n: int = 1, **fields: float | str) -> None:
        """See :class:`Progress`."""

    def message(self, text: str) -> None:
        """See :class:`Progress`."""

    def figures(self, title: str, figures: Figures, before: Figures) -> None:
        """See :class:`Progress`."""

    def finish(self) -> None:
        """See :class:`Progress`."""
