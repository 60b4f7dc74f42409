"""What an output stream can show: colour, lines that are drawn again, and which characters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
"""A name in a data set must not move the cursor."""


def open_console(stream: TextIO, environment: Mapping[str, str] | None = None) -> Console:
    """A console that writes text as it is: no markup, and lines as long as they are.

    Its ``is_terminal`` says whether lines can be drawn again: a terminal that is not dumb. Its ``color_system`` is None
    where no colours are wanted: ``NO_COLOR`` turns them off everywhere, ``FORCE_COLOR`` on also where the stream is no
    terminal, as in the logs of a build server (https://no-color.org, https://force-color.org).

    Args:
        stream: where to write.
        environment: the variables; of this process by default.
    """
    environment = os.environ if environment is None else environment
    is_dumb = environment.get("TERM", "").lower() in ("dumb", "unknown")
    is_live = is_terminal(stream) and not is_dumb
    wants_colour = is_live or bool(environment.get("FORCE_COLOR"))
    has_colour = wants_colour and not is_dumb and not environment.get("NO_COLOR")
    return Console(
        file=stream,
        force_terminal=is_live,
        force_jupyter=False,
        force_interactive=False,
        color_system="standard" if has_colour else None,
        no_color=not has_colour,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at a stream; one that is closed or missing is no terminal."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def terminal_width(stream: TextIO) -> int | None:
    """Width of the terminal that a stream is, in characters; None if it is none."""
    return open_console(stream).width if is_terminal(stream) else None


def showable(text: str, stream: TextIO) -> str:
    """The text with control characters, and those that the stream's encoding lacks, written as escapes."""
    encoding = stream.encoding or "utf-8"
    return text.translate(_CONTROLS).encode(encoding, "backslashreplace").decode(encoding)
