"""Progress on a stream that is no terminal."""

from __future__ import annotations

import io

import pytest

from aegl_cli.progress import ConsoleProgress


@pytest.mark.parametrize(("unit", "line"), [("image", "val 3/3 images"), ("class", "val 3/3 classes")])
def test_the_last_state_is_a_line(unit: str, line: str) -> None:
    stream = io.StringIO()
    progress = ConsoleProgress(stream)
    progress.start("val", 3, unit)
    progress.update(3, loss=0.123456)
    progress.finish()
    (written,) = stream.getvalue().splitlines()
    assert written.startswith(line)
    assert written.endswith("loss 0.123")
    assert "\x1b" not in written


def test_messages_are_lines_of_their_own() -> None:
    stream = io.StringIO()
    ConsoleProgress(stream).message("hello")
    assert stream.getvalue() == "hello\n"
