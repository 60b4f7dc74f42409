"""What a progress bar says, as text of a given width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.filesize import decimal
from rich.text import Text

_GAP = "  "
_SHORTEST, _LONGEST = 8, 30
"""Characters of the drawn bar."""
_OVER_BAR = 3
"""So many figures, the first, are shown rather than the bar where there is no room for both."""
_HIDDEN = "eta_s"
"""A figure that is not shown: the time left follows from what is done."""


class Bar:
    """Work in progress: how much is done, how fast, and the newest figures.

    The speed is that since the first report. A resumed run reports at once what was done before, and a loader may take
    long to give its first batch.

    Args:
        name: of the work.
        total: units to do; None or 0 if unknown.
        unit: singular.
        now: seconds on the caller's clock.
    """

    def __init__(self, name: str, total: int | None, unit: str, now: float) -> None:
        self.name = name
        self.done = 0
        self.fields: dict[str, float | str] = {}
        self._total = total or None
        self._unit = unit
        self._started = now
        self._first: tuple[float, int] | None = None

    def advance(self, n: int, fields: dict[str, float | str], now: float) -> None:
        """``n`` more units are done."""
        self.done += n
        self.fields.update(fields)
        if self._first is None:
            self._first = now, self.done

    def seconds(self, now: float) -> float:
        """Time since the beginning."""
        return now - self._started

    def line(self, now: float) -> str:
        """The state, whole, for a line of a log."""
        return _GAP.join([f"{self.name} {self._counts(with_unit=True)}", *self._pace(now), *self._figures()])

    def last(self, now: float, width: int | None) -> str:
        """The last state, cut to ``width`` characters, figures that matter least first; None: whole."""
        time = "" if self.fields else f" in {_duration(self.seconds(now))}"
        parts = [f"{self.name} {self._counts(with_unit=True)}{time}", *self._figures()]
        return _GAP.join(parts if width is None else _fitting(parts, width))

    def drawn(self, now: float, width: int, *, is_ascii: bool) -> Text:
        """The state as a bar, at most ``width`` characters in all."""
        pace, figures = self._pace(now), self._figures()
        wanted = [self.name, self._counts(with_unit=False), *pace, *figures]
        parts = _fitting(wanted, max(width - _SHORTEST - len(_GAP), 0))
        if len(parts) < len(wanted) - max(len(figures) - _OVER_BAR, 0):
            parts = _fitting(wanted, width)
        text = Text(parts[0], style="bold")
        room = width - cell_len(_GAP.join(parts)) - len(_GAP)
        if self._total and room >= _SHORTEST:
            length = min(room, _LONGEST)
            filled = min(length * self.done // self._total, length)
            done, left = ("#", "-") if is_ascii else ("━", "─")
            text.append(_GAP, "not bold").append(done * filled, "not bold cyan")
            text.append(left * (length - filled), "not bold dim")
        for part in parts[1:]:
            text.append(_GAP + part, "not bold")
        return text

    def _counts(self, *, with_unit: bool) -> str:
        if self._unit == "byte":
            return decimal(self.done) + (f" of {decimal(self._total)}" if self._total else "")
        of = f"/{self._total}" if self._total else ""
        return f"{self.done}{of} {_plural(self._unit)}" if with_unit else f"{self.done}{of}"

    def _pace(self, now: float) -> list[str]:
        """Speed, unless a figure tells it, and time left."""
        since, begun_with = self._first or (now, 0)
        if now <= since or self.done <= begun_with:
            return []
        rate = (self.done - begun_with) / (now - since)
        parts = []
        if "images_per_s" not in self.fields:
            parts.append(f"{decimal(int(rate))}/s" if self._unit == "byte" else _rate(rate))
        if self._total:
            parts.append(f"{_duration(max(self._total - self.done, 0) / rate)} left")
        return parts

    def _figures(self) -> list[str]:
        return [_figure(key, value) for key, value in self.fields.items() if key != _HIDDEN]


def _fitting(parts: Sequence[str], width: int) -> list[str]:
    """The first parts, as many as there is room for; of the very first what there is room for."""
    shown = [parts[0] if cell_len(parts[0]) <= width else set_cell_size(parts[0], width)]
    for part in parts[1:]:
        if cell_len(_GAP.join([*shown, part])) > width:
            break
        shown.append(part)
    return shown


def _plural(unit: str) -> str:
    return f"{unit}es" if unit.endswith("s") else f"{unit}s"


def _rate(per_second: float) -> str:
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"


def _figure(key: str, value: float | str) -> str:
    if isinstance(value, str):
        return f"{key} {value}"
    if key == "images_per_s":
        return f"{value:.1f} images/s"
    if key == "memory_mb":
        return f"memory {value / 1024:.1f} GB" if value >= 1024 else f"memory {value:.0f} MB"
    return f"{key} {value:.3g}" if abs(value) < 1000 else f"{key} {value:.0f}"


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
