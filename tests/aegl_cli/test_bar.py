"""What a bar says fits, whatever it is told, and its speed is that of the work it has seen."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from aegl_cli.bar import Bar

TRAINING: dict[str, float | str] = {
    "loss": 1.4321, "images_per_s": 33.61, "memory_mb": 42000.0, "lr": 0.02, "rpn_cls": 0.1, "eta_s": 5.0,
}  # fmt: skip


def bar(*, done: int = 41000, total: int | None = 180000, unit: str = "step", **fields: float | str) -> Bar:
    """Half of ``done`` at 0 s, the rest at 100 s."""
    made = Bar("train", total, unit, 0.0)
    made.advance(done // 2, {}, 0.0)
    made.advance(done - done // 2, fields, 100.0)
    return made


@given(
    name=st.text(max_size=30),
    total=st.none() | st.integers(0, 10**9),
    done=st.integers(0, 10**9),
    fields=st.dictionaries(st.text(max_size=12), st.floats(allow_nan=True) | st.text(max_size=30), max_size=6),
    width=st.integers(1, 200),
    is_ascii=st.booleans(),
)
def test_it_is_never_wider_than_the_terminal(
    name: str, total: int | None, done: int, fields: dict[str, float | str], width: int, is_ascii: bool
) -> None:
    made = Bar(name, total, "image", 0.0)
    made.advance(done // 2, {}, 1.0)
    made.advance(done - done // 2, fields, 2.0)
    assert cell_len(made.drawn(3.0, width, is_ascii=is_ascii).plain) <= width
    assert cell_len(made.last(3.0, width)) <= width


def test_what_matters_most_is_shown_first() -> None:
    made = bar(**TRAINING)
    shown = {width: made.drawn(100.0, width, is_ascii=True).plain for width in (40, 79, 100, 160)}
    assert shown[40] == "train  41000/180000  11:18 left"
    assert shown[79] == "train  41000/180000  11:18 left  loss 1.43  33.6 images/s  memory 41.0 GB"
    assert shown[100] == (
        "train  ###-------------  41000/180000  11:18 left  loss 1.43  33.6 images/s  memory 41.0 GB  lr 0.02"
    )
    assert shown[160].endswith("lr 0.02  rpn_cls 0.1")
    assert not any("eta" in text for text in shown.values())


def test_the_bar_is_as_full_as_the_work_is_done() -> None:
    def filled(done: int, *, is_ascii: bool) -> str:
        return bar(done=done, total=60).drawn(100.0, 79, is_ascii=is_ascii).plain.split("  ")[1]

    assert [filled(done, is_ascii=True).count("#") for done in (0, 30, 60)] == [0, 15, 30]
    assert filled(30, is_ascii=False) == "━" * 15 + "─" * 15
    assert filled(120, is_ascii=True) == "#" * 30  # more than was announced


def test_speed_and_time_left_leave_out_what_was_done_before() -> None:
    resumed = Bar("train", 1000, "step", 0.0)
    resumed.advance(900, {}, 0.0)
    assert resumed.line(0.0) == "train 900/1000 steps"  # nothing is known of the speed yet
    resumed.advance(50, {}, 25.0)
    assert resumed.line(25.0) == "train 950/1000 steps  2.0/s  0:25 left"


@pytest.mark.parametrize(
    ("done", "total", "unit", "line"),
    [
        (40, None, "class", "train 40 classes  5.0 s each"),
        (40, 0, "image", "train 40 images  5.0 s each"),
        (400, 4_000_000, "step", "train 400/4000000 steps  2.0/s  555:30:00 left"),
        (3 * 10**8, 9 * 10**8, "byte", "train 300.0 MB of 900.0 MB  1.5 MB/s  6:40 left"),
    ],
)
def test_amounts(done: int, total: int | None, unit: str, line: str) -> None:
    assert bar(done=done, total=total, unit=unit).line(100.0) == line


def test_figures() -> None:
    text = bar(loss=float("nan"), memory_mb=512.4, lr=0.00012345, seen=123456.7, engine="onnx").line(100.0)
    assert re.search(r"loss nan  memory 512 MB  lr 0\.000123  seen 123457  engine onnx$", text)
