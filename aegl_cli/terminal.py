"""What an output stream can show, and text written so: colour, lines that are drawn again, the right characters."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from typing import Any, TextIO, cast

from rich.console import Console, RenderableType, detect_legacy_windows

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
"""A name in a data set must not move the cursor."""
_ERASE_LINE = "\r\x1b[2K"


class Terminal:
    """A stream that people look at, or a file or pipe in place of it.

    Attributes:
        is_live: whether lines can be drawn again: it is a terminal, and not a dumb one.

    Args:
        stream: where to write.
        environment: the variables that decide about colours, by default of this process. ``NO_COLOR`` turns them off
            everywhere, ``FORCE_COLOR`` on also where the stream is no terminal, as in the logs of a build server
            (https://no-color.org, https://force-color.org).
    """

    def __init__(self, stream: TextIO, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        is_dumb = environment.get("TERM", "").lower() in ("dumb", "unknown")
        self._stream = stream
        self._has_bar = False
        self.is_live = _is_terminal(stream) and not is_dumb and not detect_legacy_windows()
        wants_colour = self.is_live or bool(environment.get("FORCE_COLOR"))
        has_colour = wants_colour and not is_dumb and not environment.get("NO_COLOR")
        # It writes into memory: on a pipe that nobody reads, it would end the process.
        self._console = Console(
            file=io.StringIO(),
            force_terminal=self.is_live,
            force_jupyter=False,
            force_interactive=False,
            color_system="standard" if has_colour else None,
            no_color=not has_colour,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
        )

    @property
    def width(self) -> int:
        """Characters of a line, at this moment."""
        return self._console.width

    @property
    def is_ascii(self) -> bool:
        """Whether to do without characters for drawing."""
        return not (self._stream.encoding or "utf-8").lower().startswith("utf")

    def fits(self, content: RenderableType) -> bool:
        """Whether no line is longer than the terminal's."""
        return self._console.measure(content).maximum <= self.width

    def write(self, *lines: RenderableType, bar: RenderableType | None = None) -> None:
        """Write lines in place of the bar, and the bar again below them.

        What cannot be written, because nobody reads any more or the disk is full, is left out: no run ends for that.

        Args:
            lines: strings of rich are written as they are, without markup, however long.
            bar: shorter than a line; only where ``is_live``.
        """
        with self._console.capture() as captured:
            for line in lines:
                self._console.print(line)
            if bar is not None:
                self._console.print(bar, end="")
        with contextlib.suppress(OSError):
            self._stream.write((_ERASE_LINE if self.is_live else "") + captured.get())
            self._stream.flush()
        self._has_bar = bar is not None

    def beside(self) -> TextIO:
        """The same stream for what others write, warnings of Python for instance: the bar gives way to it."""
        return cast("TextIO", _Beside(self, self._stream))

    def give_way(self) -> None:
        """Take the bar away until it is drawn again."""
        if self._has_bar:
            self._has_bar = False
            with contextlib.suppress(OSError):
                self._stream.write(_ERASE_LINE)


class _Beside:
    def __init__(self, terminal: Terminal, stream: TextIO) -> None:
        self._terminal = terminal
        self._stream = stream

    def write(self, text: str) -> int:
        self._terminal.give_way()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def terminal_width(stream: TextIO) -> int | None:
    """Characters of a line of the terminal that a stream is; None if it is none."""
    return Terminal(stream).width if _is_terminal(stream) else None


def showable(text: str, stream: TextIO) -> str:
    """The text with control characters, and those that the stream's encoding lacks, written as escapes."""
    encoding = stream.encoding or "utf-8"
    return text.translate(_CONTROLS).encode(encoding, "backslashreplace").decode(encoding)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False
