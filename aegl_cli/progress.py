"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from aegl.progress import Figures
from aegl_cli.bar import Bar
from aegl_cli.terminal import Terminal, showable

_DRAW_EVERY = 0.1
"""Seconds between two states of a bar on a terminal."""
_LINE_EVERY = 10.0
"""Seconds between two lines about the same work where standard error is no terminal."""
_BRIEF = 1.0
"""Work without figures that took less, in seconds, leaves no line."""
_VALUE_WIDTH = 5


class ConsoleProgress:
    """Implements :class:`aegl.progress.Progress`.

    Args:
        stream: where to write; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = Terminal(self._stream)
        self._bar: Bar | None = None
        self._shown = 0.0

    def beside(self) -> TextIO:
        """The same stream for what others write: the bar gives way to it."""
        return self._terminal.beside()

    def start(self, name: str, total: int | None, unit: str) -> None:
        """Begin a bar."""
        self._shown = time.monotonic()
        self._bar = Bar(self._showable(name), total, unit, self._shown)
        if self._terminal.is_live:
            self._put()

    def update(self, n: int = 1, **fields: float | str) -> None:
        """Move the bar and renew its figures."""
        if self._bar is None:
            return
        now = time.monotonic()
        shown = {key: self._showable(each) if isinstance(each, str) else each for key, each in fields.items()}
        self._bar.advance(n, shown, now)
        if now - self._shown < (_DRAW_EVERY if self._terminal.is_live else _LINE_EVERY):
            return
        self._shown = now
        if self._terminal.is_live:
            self._put()
        else:
            self._put(Text(self._bar.line(now)))

    def message(self, text: str) -> None:
        """Write a line of its own."""
        self._put(Text(self._showable(text)))

    def error(self, text: str) -> None:
        """Write a line that says that something went wrong."""
        self._marked("error:", "bold red", text)

    def warning(self, text: str) -> None:
        """Write a line that says that something may be wrong."""
        self._marked("warning:", "bold yellow", text)

    def failure(self, text: str, *, process: int = 0) -> None:
        """Write why the command fails.

        Args:
            text: what is wrong and what to do.
            process: its number among those that torchrun started; the main one needs no naming.
        """
        self._marked(f"aegl: error in process {process}:" if process else "aegl: error:", "bold red", text)

    def figures(self, title: str, figures: Figures, before: Figures) -> None:
        """Show figures in percent with their change: a table on a terminal, a line elsewhere."""
        table = _table(figures, before)
        if self._terminal.is_live and self._terminal.fits(table):
            self._put(Text(f"{self._showable(title)}, percent", style="bold"), table)
        else:
            self._put(Text(self._showable(f"{title}: {_sentence(figures, before)}")))

    def finish(self) -> None:
        """Leave the last state of the bar."""
        bar, self._bar = self._bar, None
        if bar is None:
            return
        now = time.monotonic()
        if bar.fields or bar.seconds(now) >= _BRIEF:
            self._put(Text(bar.last(now, self._width if self._terminal.is_live else None)))
        elif self._terminal.is_live:
            self._put()

    @property
    def _width(self) -> int:
        """The last column stays free: some terminals begin a new line when it is written."""
        return self._terminal.width - 1

    def _put(self, *lines: RenderableType) -> None:
        """Write lines, on a terminal above the bar."""
        bar = None
        if self._terminal.is_live and self._bar is not None:
            bar = self._bar.drawn(time.monotonic(), self._width, is_ascii=self._terminal.is_ascii)
        self._terminal.write(*lines, bar=bar)

    def _marked(self, mark: str, style: str, text: str) -> None:
        self._put(Text.assemble((mark, style), " ", self._showable(text)))

    def _showable(self, text: str) -> str:
        return showable(text, self._stream)


class LogToProgress(logging.Handler):
    """Shows the library's log records as messages.

    Args:
        progress: where.
        level: the least that is shown.
    """

    def __init__(self, progress: ConsoleProgress, level: int = logging.INFO) -> None:
        super().__init__(level)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record; warnings and errors say that they are."""
        if record.levelno < logging.WARNING:
            self._progress.message(record.getMessage())
        elif record.levelno < logging.ERROR:
            self._progress.warning(record.getMessage())
        else:
            self._progress.error(record.getMessage())


def _table(figures: Figures, before: Figures) -> Table:
    names = list(dict.fromkeys(name for row in figures.values() for name in row))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("", *(name.rjust(_VALUE_WIDTH) for name in names)):
        table.add_column(heading)
    for kind, row in figures.items():
        table.add_row(kind, *(_cell(row.get(name), before.get(kind, {}).get(name)) for name in names))
    return table


def _cell(value: float | None, before: float | None) -> Text:
    cell = Text(_percent(value).rjust(_VALUE_WIDTH))
    change = _change(value, before)
    if change:
        style = {"+": "green", "-": "red"}[change[0]] if float(change) else "dim"
        cell.append(" " + change, style)
    return cell


def _sentence(figures: Figures, before: Figures) -> str:
    return "; ".join(
        f"{kind} " + ", ".join(_with_change(name, row[name], before.get(kind, {}).get(name)) for name in row)
        for kind, row in figures.items()
    )


def _with_change(name: str, value: float | None, before: float | None) -> str:
    change = _change(value, before)
    return f"{name} {_percent(value)}" + (f" ({change})" if change else "")


def _change(value: float | None, before: float | None) -> str:
    """In percentage points; empty where there is nothing to compare."""
    if value is None or before is None:
        return ""
    return f"{round(100 * (value - before), 1) + 0.0:+.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
