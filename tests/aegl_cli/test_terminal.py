"""What people see: the command in a terminal of a given width, and the same through a pipe."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from aegl_cli.render import listing
from aegl_cli.terminal import Terminal, showable

pytest.importorskip("pty", reason="no pseudo-terminals here")

SHOW = """
import logging, time
from aegl_cli.progress import ConsoleProgress, LogToProgress
progress = ConsoleProgress()
log = LogToProgress(progress)
figures = {"box": {"AP": 0.1, "APr": None}, "mask": {"AP": 0.2, "APr": 0.1}}
progress.start("train", 180000, "step")
progress.update(41000)
for step in range(3):
    time.sleep(0.11)
    progress.update(1, loss=1.4, images_per_s=33.6, memory_mb=42000.0, lr=0.02, rpn_cls=0.1, mask=0.2, data_share=0.01)
log.emit(logging.LogRecord("aegl", logging.WARNING, "", 0, "mind", None, None))
progress.finish()
progress.figures("step 41003 (lvis, val)", figures, {"box": {"AP": 0.15}, "mask": {"AP": 0.15, "APr": 0.1}})
progress.failure("wrong")
"""
STYLES = re.compile(r"\x1b\[[0-9;]*m")


def in_terminal(command: Sequence[str], *, columns: int = 80, **environment: str) -> str:
    """Everything that a command writes to a terminal, both streams."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    settings = {"TERM": "xterm", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1", **environment}
    ignored = ("COLUMNS", "NO_COLOR", "FORCE_COLOR")
    inherited = {name: value for name, value in os.environ.items() if name not in ignored}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**inherited, **settings}
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not part:
                break
            written += part
        os.close(ours)
    assert process.returncode == 0, written.decode()
    return written.decode(settings["PYTHONIOENCODING"]).replace("\r\n", "\n")


def rows(written: str) -> list[str]:
    """What stands on the screen at the end, without colours; lines must not be redrawn otherwise than as a whole."""
    return [STYLES.sub("", line.split("\r\x1b[2K")[-1]) for line in written.split("\n")]


def states(written: str) -> list[str]:
    """All that ever stood in a line, without colours."""
    return [STYLES.sub("", state) for state in re.split(r"\n|\r\x1b\[2K", written)]


@pytest.mark.parametrize("columns", [40, 80, 132])
def test_nothing_is_wider_than_the_terminal(columns: int) -> None:
    written = in_terminal([sys.executable, "-c", SHOW], columns=columns)
    assert max(len(state) for state in states(written)) < columns
    assert all(character.isprintable() for state in states(written) for character in state)


def test_at_80_columns() -> None:
    written = in_terminal([sys.executable, "-c", SHOW])
    assert any(re.fullmatch(r"train  ─{29,30}  0/180000", state) for state in states(written))
    middle = r"train  4100\d/180000  \d+:\d\d:\d\d left  loss 1.4  33.6 images/s  memory 41.0 GB"
    assert any(re.fullmatch(middle, state) for state in states(written))
    assert [row.rstrip() for row in rows(written) if row] == [
        "warning: mind",
        "train 41003/180000 steps  loss 1.4  33.6 images/s  memory 41.0 GB  lr 0.02",
        "step 41003 (lvis, val), percent",
        "         AP         APr",
        "box    10.0 -5.0      -",
        "mask   20.0 +5.0   10.0 +0.0",
        "aegl: error: wrong",
    ]
    assert "\x1b[1;31maegl: error:\x1b[0m wrong" in written
    assert "\x1b[1;33mwarning:\x1b[0m mind" in written
    assert "\x1b[32m +5.0" in written and "\x1b[31m -5.0" in written
    assert "\x1b[?25l" not in written  # a killed run leaves no terminal without a cursor


def test_no_color_leaves_the_bar_and_takes_the_colours() -> None:
    written = in_terminal([sys.executable, "-c", SHOW], NO_COLOR="1", FORCE_COLOR="1")
    assert STYLES.search(written) is None
    assert "\r\x1b[2Ktrain  " in written


def test_the_bar_gives_way_to_what_others_write() -> None:
    """A callback that prints, a warning of Python."""
    code = """
import warnings
from aegl_cli.runner import run
def task(keys, progress):
    progress.start("work", 2, "step")
    print("one", "two")
    progress.update(1)
    warnings.warn("three")
    progress.finish()
    return {"text": "four"}
run("train", [], task, lambda result: result["text"])
"""
    shown = rows(in_terminal([sys.executable, "-c", code]))
    assert shown[0] == "one two"
    assert shown[1].endswith("UserWarning: three")
    assert [row for row in shown if row][-1] == "four"


def test_ascii() -> None:
    written = in_terminal([sys.executable, "-c", SHOW], columns=132, PYTHONIOENCODING="ascii")
    assert written.isascii()
    assert re.search(r"train\S*  \S*#+\S*-+", written)


def test_a_dumb_terminal_gets_lines() -> None:
    written = in_terminal([sys.executable, "-c", SHOW], TERM="dumb", FORCE_COLOR="1")
    assert all(character.isprintable() for line in written.splitlines() for character in line)
    assert "step 41003 (lvis, val): box AP 10.0 (-5.0), APr -; mask AP 20.0 (+5.0), APr 10.0 (+0.0)" in written


@pytest.mark.slow
def test_training(tiny: tuple[str, ...], tmp_path: Any) -> None:
    """The whole way: memory, figures of every evaluation, and each line within the terminal."""
    words = (*tiny, "val_every=3", "log_every=1", "device=cpu", f"project={tmp_path}", "name=x")
    written = in_terminal([sys.executable, "-m", "aegl_cli", "train", *words])
    bars = [state for state in states(written) if state.startswith(("train  ", "val  ", "score"))]
    assert bars and max(map(len, bars)) < 80
    assert any("memory " in bar and " images/s" in bar and "loss " in bar and " left" in bar for bar in bars)
    screen = rows(written)
    first, second = (screen.index(f"step {step} (lvis, val), percent") for step in (3, 6))
    assert screen[first + 1].split() == screen[second + 1].split() == ["AP", "APr", "APc", "APf"]
    assert not re.search(r"[+-]\d", screen[first + 2])
    assert re.search(r"^box +\d+\.\d [+-]\d+\.\d ", screen[second + 2])


def test_lists_are_wrapped_into_the_terminal() -> None:
    rows = [["a", "method", "one two three four five six"], ["bb", "x", "/a/path/that/is/longer-than/the/column.html"]]
    assert listing(rows, 33) == (
        "a   method  one two three four\n            five six\nbb  x       /a/path/that/is/longer-than/the/column.html"
    )
    assert listing(rows, 30).count("\n") == 1  # too narrow for a column: the terminal wraps
    assert listing(rows).splitlines()[0] == "a   method  one two three four five six"


@pytest.mark.parametrize(("words", "columns"), [(["methods"], 110), (["train", "--help"], 80)])
def test_long_texts_in_a_terminal(words: list[str], columns: int) -> None:
    shown = rows(in_terminal([sys.executable, "-m", "aegl_cli", *words], columns=columns))
    assert len(shown) > 20
    assert max(map(len, shown)) <= columns


def test_a_closed_stream_is_no_terminal(tmp_path: Any) -> None:
    with (tmp_path / "log").open("w") as stream:
        pass
    assert not Terminal(stream).is_live
    assert showable("ok\tà\n", stream) == "ok\tà\n"
