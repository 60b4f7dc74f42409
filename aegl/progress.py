"""How the library tells whoever runs it how far it is; it never prints."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """One bar at a time, and messages beside it."""

    def start(self, name: str, total: int | None, unit: str) -> None:
        """Begin work of ``total`` units (None if unknown)."""

    def update(self, n: int = 1, **fields: float | str) -> None:
        """``n`` more units are done; ``fields`` are the newest figures to show."""

    def message(self, text: str) -> None:
        """Say something worth a line."""

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

    def finish(self) -> None:
        """See :class:`Progress`."""
