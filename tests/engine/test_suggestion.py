"""A training on the user's own data says what would suit it, where the user has not chosen."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from aegl.config import load_config
from aegl.data.source import resolve_data
from aegl.engine.suggestion import suggest

SHAPES = {"classes": 4, "max_instances": 30, "imbalance": 30, "val_per_class": 2, "imgsz": 64}


@pytest.fixture
def own_data(tmp_path: Path) -> str:
    """The built-in set as somebody's own."""
    config = load_config({"data": "shapes_lt", "shapes": SHAPES})
    files = resolve_data("shapes_lt", data_dir=Path(), shapes=config.shapes, bands=config.bands).files
    description = tmp_path / "mine.yaml"
    described: dict[str, Any] = {split: str(path.resolve()) for split, path in files.items()}
    description.write_text(yaml.safe_dump(described))
    return str(description)


def said(caplog: pytest.LogCaptureFixture, **asked: Any) -> str:
    with caplog.at_level(logging.INFO, "aegl"):
        suggest(load_config({**asked, "shapes": SHAPES}), asked)
    return caplog.text


def test_the_proposal_and_its_reason_are_told(own_data: str, caplog: pytest.LogCaptureFixture) -> None:
    text = said(caplog, data=own_data, model="mini")
    assert f"`aegl data advise data={own_data}` proposes" in text
    assert "method=seesaw" in text and "sampler=rfs" in text and "30 times the objects of the rarest" in text


@pytest.mark.parametrize("choice", [{"method": "eql"}, {"sampler": "random"}, {"loss": {"mu": 0.5}}])
def test_a_choice_is_not_questioned(own_data: str, caplog: pytest.LogCaptureFixture, choice: dict[str, Any]) -> None:
    assert said(caplog, data=own_data, **choice) == ""


def test_shipped_data_has_its_recipes(caplog: pytest.LogCaptureFixture) -> None:
    assert said(caplog, data="shapes_lt") == ""


def test_a_training_that_another_one_asks_for_is_not_commented(own_data: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "aegl"):
        suggest(load_config({"data": own_data, "method": "softmax_ce", "shapes": SHAPES}), {})
    assert caplog.text == ""
