"""A configuration folder of the test's own, and saved configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from aegl.config import Config, shipped, to_yaml

CfgFolder = Callable[[dict[str, dict[str, Any]]], None]


@pytest.fixture
def cfg_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CfgFolder]:
    """Puts files, by ``kind/name``, in the place of the shipped ones."""
    folder = tmp_path / "shipped"

    def put(files: dict[str, dict[str, Any]]) -> None:
        for name, content in files.items():
            file = folder / f"{name}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(yaml.safe_dump(content))
        monkeypatch.setattr(shipped, "resources", SimpleNamespace(files=lambda package: folder))
        shipped.available.cache_clear()

    yield put
    monkeypatch.undo()
    shipped.available.cache_clear()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Config], str]:
    """Writes a configuration as a run does, and gives the file's path."""

    def save(config: Config) -> str:
        path = tmp_path / "args.yaml"
        path.write_text(to_yaml(config), encoding="utf-8")
        return str(path)

    return save
