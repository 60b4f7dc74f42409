from __future__ import annotations

import pytest

from aegl.errors import ConfigError
from aegl_cli.keyvalue import parse


def test_styles_mix() -> None:
    words = ["data=a", "--model", "r50", "--lr=0.1", "--resume", "--loss.mu", "0.5", "--json", "exist-ok=true"]
    assert parse(words) == {
        "data": "a", "model": "r50", "lr": "0.1", "resume": "true", "loss.mu": "0.5", "exist_ok": "true",
    }  # fmt: skip


def test_flag_before_a_pair() -> None:
    assert parse(["--resume", "name=x"]) == {"resume": "true", "name": "x"}


def test_negative_value() -> None:
    assert parse(["--lr", "-1"]) == {"lr": "-1"}


def test_positional() -> None:
    assert parse(["lvis_v1"], positional="data") == {"data": "lvis_v1"}


@pytest.mark.parametrize("words", [["foo"], ["--"], ["a=1", "a=2"]])
def test_refusals(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse(words)
