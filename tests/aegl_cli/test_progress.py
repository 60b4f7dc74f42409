"""Progress on a stream that is no terminal: plain lines, few of them."""

from __future__ import annotations

import errno
import io
import logging
from typing import Any

import pytest

from aegl_cli import progress as module
from aegl_cli.progress import ConsoleProgress, LogToProgress

FIGURES = {"box": {"AP": 0.095, "APr": None}, "mask": {"AP": 0.113, "APr": 0.0851}}
BEFORE = {"box": {"AP": 0.1, "APr": 0.01}, "mask": {"AP": 0.1, "APr": 0.085}}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, to be set."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("unit", "line"), [("image", "val 3/3 images"), ("class", "val 3/3 classes")])
def test_the_last_state_is_a_line(unit: str, line: str) -> None:
    stream = io.StringIO()
    progress = ConsoleProgress(stream)
    progress.start("val", 3, unit)
    progress.update(3, loss=0.123456)
    progress.finish()
    progress.finish()  # nothing is open any more
    (written,) = stream.getvalue().splitlines()
    assert written.startswith(line)
    assert written.endswith("loss 0.123")
    assert "\x1b" not in written


def test_lines_are_ten_seconds_apart(clock: list[float]) -> None:
    stream = io.StringIO()
    progress = ConsoleProgress(stream)
    progress.start("train", 480, "step")
    for step in range(480):
        clock[0] += 0.125
        progress.update(1, loss=1.0 / (1 + step))
    progress.finish()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 7  # a minute, and the end
    assert lines[0] == "train 80/480 steps  8.0/s  0:50 left  loss 0.0125"


def test_brief_work_leaves_no_line_unless_it_has_figures(clock: list[float]) -> None:
    stream = io.StringIO()
    progress = ConsoleProgress(stream)
    for seconds in (0.5, 12.0):
        progress.start("score box", 1203, "class")
        clock[0] += seconds
        progress.update(1203)
        progress.finish()
    assert stream.getvalue().splitlines()[-1] == "score box 1203/1203 classes in 0:12"
    assert "0:00" not in stream.getvalue()


def test_an_evaluation_is_one_line_with_its_changes() -> None:
    stream = io.StringIO()
    progress = ConsoleProgress(stream)
    progress.figures("step 30 (lvis, val)", FIGURES, {})
    progress.figures("step 60 (lvis, val)", FIGURES, BEFORE)
    assert stream.getvalue().splitlines() == [
        "step 30 (lvis, val): box AP 9.5, APr -; mask AP 11.3, APr 8.5",
        "step 60 (lvis, val): box AP 9.5 (-0.5), APr -; mask AP 11.3 (+1.3), APr 8.5 (+0.0)",
    ]


def test_messages_are_lines_of_their_own_as_they_are() -> None:
    stream = io.StringIO()
    text = f"[bold]{'x' * 300} :smile: 'no markup' is seen in this"
    ConsoleProgress(stream).message(text)
    assert stream.getvalue() == text + "\n"


def test_warnings_and_errors_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def written(level: int) -> str:
        stream = io.StringIO()
        record = logging.LogRecord("aegl", level, __file__, 1, "the %s", ("text",), None)
        handler = LogToProgress(ConsoleProgress(stream), logging.INFO)
        if level >= handler.level:
            handler.emit(record)
        return stream.getvalue()

    plain = ["the text\n", "warning: the text\n", "error: the text\n"]
    levels = (logging.INFO, logging.WARNING, logging.ERROR)
    assert [written(level) for level in levels] == plain
    monkeypatch.setenv("FORCE_COLOR", "1")  # a build server that shows colours
    coloured = [written(level) for level in levels]
    assert coloured == [plain[0], "\x1b[1;33mwarning:\x1b[0m the text\n", "\x1b[1;31merror:\x1b[0m the text\n"]
    monkeypatch.setenv("NO_COLOR", "1")
    assert [written(level) for level in levels] == plain


def test_an_error_names_the_process_unless_it_is_the_main_one() -> None:
    stream = io.StringIO()
    ConsoleProgress(stream).failure("wrong")
    ConsoleProgress(stream).failure("wrong", process=3)
    assert stream.getvalue() == "aegl: error: wrong\naegl: error in process 3: wrong\n"


def test_names_in_data_cannot_move_the_cursor() -> None:
    stream = io.StringIO()
    progress = ConsoleProgress(stream)
    progress.message("class \x1b[2Jcat\r\x9b1A\x07")
    progress.start("write \x1b[2J", 1, "image")
    progress.update(1, loss=1.0, file="\x1b[2J")
    progress.finish()
    first, second = stream.getvalue().splitlines()
    assert first == r"class \x1b[2Jcat\x0d\x9b1A\x07"
    assert second == r"write \x1b[2J 1/1 images  loss 1  file \x1b[2J"


def test_an_encoding_that_lacks_a_character_is_no_error() -> None:
    raw = io.BytesIO()
    progress = ConsoleProgress(io.TextIOWrapper(raw, encoding="ascii", errors="strict"))
    progress.message("Ägäis \udcff")
    assert raw.getvalue() == b"\\xc4g\\xe4is \\udcff\n"


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_no_run_ends_because_nobody_can_be_told(number: int) -> None:
    class Refusing(io.StringIO):
        def write(self, text: str) -> Any:
            raise OSError(number, "refused")

    progress = ConsoleProgress(Refusing())
    progress.start("train", 2, "step")
    progress.update(1, loss=1.0)
    progress.message("half")
    progress.finish()
