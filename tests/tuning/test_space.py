"""Ranges as users write them: typed by their keys, open ends filled by these, and all mistakes said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aegl.errors import ConfigError
from aegl.tuning.space import Choice, Range, as_texts, read_space

GIVEN = {"data": "shapes_lt", "method": "fbs_aegl", "model": "mini", "iterations": 8}


def space(**ranges: Any) -> dict[str, Range | Choice]:
    return read_space({"space": {key.replace("__", "."): value for key, value in ranges.items()}}, GIVEN)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("lr", "0.001..0.1:log", Range(0.001, 0.1, log=True)),
        ("lr", "1e-3..1e-1", Range(0.001, 0.1)),
        ("batch", "4..16:step=4", Range(4, 16, whole=True, step=4)),
        ("warmup_iterations", "..10", Range(0, 10, whole=True)),
        ("roi__positive_iou", "0.3..", Range(0.3, 1.0)),
        ("flip", "auto", Range(0.0, 1.0)),
        ("optimizer", "auto", Choice(("sgd", "adamw"))),
        ("ema", "auto", Choice((False, True))),
        ("ema", "true|false", Choice((True, False))),
        ("sampler", "random|rfs", Choice(("random", "rfs"))),
        ("sampler", ["random", "rfs"], Choice(("random", "rfs"))),
        ("lr", "0.01|0.02", Choice((0.01, 0.02))),
        ("loss__mu", "0.1..0.9", Range(0.1, 0.9)),
        ("method", "fbs_aegl|softmax_ce", Choice(("fbs_aegl", "softmax_ce"))),
    ],
)
def test_a_range_has_the_type_and_the_bounds_of_its_key(key: str, text: Any, expected: Range | Choice) -> None:
    assert list(space(**{key: text}).values()) == [expected]


def test_an_open_end_whose_bound_is_not_allowed_itself_stays_inside() -> None:
    found = space(momentum="0.5..")["momentum"]
    assert isinstance(found, Range) and 0.999 < found.high < 1


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("lr", "0.1..0.001", "must rise"),
        ("lr", "0.1..", r"lr is a number > 0, so the range needs its high end"),
        ("lr", "0..0.1:log", "a logarithm needs a range above 0"),
        ("lr", "-1..0.1", "must be a number > 0"),
        ("lr", "a..b", "a: must be a number|a is no number"),
        ("lr", "0.1..0.2:lin", "lin: unknown; write low..high"),
        ("lr", "0.1", "is no range; write low..high"),
        ("batch", "1..8:step=0", "a step must be above 0"),
        ("sampler", "a..b", "has no range"),
        ("sampler", "random|rsf", "sampler=rsf: must be one of random"),
        ("sampler", ["rfs"], "one value is no choice; give sampler=rfs"),
        ("ler", "0.1..0.2", r"ler: unknown key \(did you mean lr"),
        ("loss__nu", "0.1..0.2", "loss.nu: unknown option of fbs_aegl"),
        ("seed", "1..9", "space.seed: cannot be searched; it must be the same in all trials"),
    ],
)
def test_a_range_that_cannot_be_used_is_refused(key: str, text: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space(**{key: text})


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        space(lr="0.1..0.01", sampler="random|rsf")
    assert len(str(error.value).splitlines()) == 2


def test_a_file_holds_ranges_and_an_argument_is_stronger(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("lr: 0.001..0.1:log\nsampler: [random, rfs]\n")
    found = read_space({"space": str(file), "space.lr": "0.1..0.2"}, GIVEN)
    assert as_texts(found) == {"lr": "0.1..0.2", "sampler": "random|rfs"}
    with pytest.raises(ConfigError, match=r"space=.*none.yaml: no such file"):
        read_space({"space": str(tmp_path / "none.yaml")}, GIVEN)


def test_no_space_is_refused_with_an_example() -> None:
    with pytest.raises(ConfigError, match=r"space: not given; say what to search, e\.g\. space\.lr="):
        read_space({}, GIVEN)
