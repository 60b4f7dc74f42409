"""Verbs that tell about the toolkit, and what the command line makes of a verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_cfg_resolves_layers(aegl: Any) -> None:
    result = aegl("cfg", "--model", "swin_t", "method=softmax_ce", "lr=0.5", "--json")
    config = json.loads(result.stdout)["config"]
    assert (config["optimizer"], config["lr"], config["loss"]["name"]) == ("adamw", 0.5, "softmax_ce")


def test_cfg_shows_what_a_file_would_hold(aegl: Any, tmp_path: Path) -> None:
    words = ("model=mini", "data=shapes_lt", "lr=0.5", "loss.mu=0.25")
    file = tmp_path / "my.yaml"
    file.write_text(aegl("cfg", *words).stdout)
    assert aegl("cfg", f"cfg={file}").stdout == file.read_text()


def test_models_lists_the_shipped_ones(aegl: Any) -> None:
    names = {model["name"] for model in json.loads(aegl("models", "--json").stdout)["models"]}
    assert {"r50", "r101", "x101", "swin_t", "mobilenetv2", "mini"} <= names


def test_methods_explains_one(aegl: Any) -> None:
    result = aegl("methods", "fbs_aegl")
    assert result.exit_code == 0
    assert "loss.mu" in result.stdout
    assert "27.8" in result.stdout


@pytest.mark.parametrize(("world_size", "speaks"), [(None, True), ("1", True), ("4", False)])
def test_only_the_main_process_of_several_speaks(
    aegl: Any, monkeypatch: pytest.MonkeyPatch, world_size: str | None, speaks: bool
) -> None:
    """A `RANK` that a cluster sets for its own ends makes no difference to a process that is alone."""
    monkeypatch.setenv("RANK", "3")
    if world_size is not None:
        monkeypatch.setenv("WORLD_SIZE", world_size)
    result = aegl("models")
    assert result.exit_code == 0
    assert bool(result.stdout) == speaks
    assert "in process 3" in aegl("models", "x=1").stderr or speaks
