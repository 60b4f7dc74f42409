"""Every notebook below docs/ runs from its first cell to its last, and is kept without outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SMALL = {"shapes.classes": 6, "shapes.max_instances": 12, "shapes.imbalance": 6, "shapes.val_per_class": 2}
NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs").rglob("*.ipynb"))


def _cells(notebook: Path) -> list[dict[str, Any]]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    cells: list[dict[str, Any]] = content["cells"]
    return cells


def _code(notebook: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in _cells(notebook) if cell["cell_type"] == "code"]


def _smaller(code: str) -> str:
    """The same with a few small images and two steps: whether it runs is asked here, not what it learns."""
    code = code.replace('{"shapes.classes": 20}', repr(SMALL))
    return re.sub(r"\biterations=\d+", "iterations=2", re.sub(r"\bwarmup_iterations=\d+", "warmup_iterations=1", code))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(notebook: Path) -> None:
    cells = _cells(notebook)
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
    assert len({cell["id"] for cell in cells}) == len(cells)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, code in enumerate(_code(notebook)):
        exec(compile(_smaller(code), f"{notebook.name}, code cell {number}", "exec"), names)
    for picture in tmp_path.glob("*.png"):
        assert Image.open(picture).width > 100
    assert list(tmp_path.rglob("best.onnx"))
