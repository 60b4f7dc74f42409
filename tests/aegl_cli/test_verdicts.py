"""Verbs that test something say by their exit code how it went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_data_with_errors_gives_exit_code_1(aegl: Any, tmp_path: Path) -> None:
    image = {"id": 1, "height": 8, "width": 8, "file_name": "gone.jpg"}
    content = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "ant"}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    for words in ((), ("--json",)):
        result = aegl("data", "check", f"data={tmp_path}", *words)
        assert result.exit_code == 1
        assert "1 images are missing" in result.stdout


def test_sound_data_gives_exit_code_0(aegl: Any, tiny_data: tuple[str, ...]) -> None:
    assert aegl("data", "check", *tiny_data).exit_code == 0


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (None, 0), (False, 1)])
def test_an_exported_file_that_differs_gives_exit_code_1(
    aegl: Any, monkeypatch: pytest.MonkeyPatch, passed: bool | None, code: int
) -> None:
    parity = {"passed": passed, "text": "the report"}
    result = {"file": "best.onnx", "report": "best.onnx.json", "opset": 18, "megabytes": 1.0, "parity": parity}
    monkeypatch.setattr("aegl.tasks.export", lambda overrides, progress: result)
    ended = aegl("export", "weights=best.pt")
    assert (ended.exit_code, "the report" in ended.stdout) == (code, True)


def test_an_export_without_comparison_passes(aegl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result = {"file": "best.onnx", "report": "best.onnx.json", "opset": 18, "megabytes": 1.0, "parity": None}
    monkeypatch.setattr("aegl.tasks.export", lambda overrides, progress: result)
    assert aegl("export", "weights=best.pt", "parity=false").exit_code == 0
