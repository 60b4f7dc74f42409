"""The layers of docs/architecture.md: imports point downwards only, files stay readable, the library does not speak."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "aegl": ROOT / "aegl",
    "aegl.export": ROOT / "export",
    "aegl.cfg": ROOT / "cfg",
    "aegl_cli": ROOT / "aegl_cli",
}
LAYERS: dict[str, int] = {
    name: height
    for height, names in enumerate(
        [
            ("_version", "errors", "progress", "types", "metadata"),
            ("longtail",),
            ("config", "cfg"),
            ("data", "models"),
            ("metrics", "plots", "runtime"),
            ("engine",),
            ("export", "serving"),
            ("trained", "environment", "comparison", "benchmarking", "plotting", "tuning"),
            ("reporting",),
            ("data_tasks", "serving_tasks"),
            ("export_tasks", "figure_tasks", "prediction_tasks"),
            ("tasks",),
            ("detector",),
            ("aegl_cli",),
        ]
    )
    for name in names
}
MOST_LINES = 300


def _files() -> list[tuple[str, Path]]:
    """Dotted name and path of every module; the links from aegl/ to cfg/ and export/ are not followed."""
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder)
            if package == "aegl" and inside.parts[0] in ("cfg", "export"):
                continue
            found.append((".".join([package, *inside.with_suffix("").parts]), path))
    return found


FILES = _files()


def _layer(module: str) -> int | None:
    """Height of a dotted name; None for the package `aegl` itself and for other packages."""
    parts = module.split(".")
    if parts[0] == "aegl_cli":
        return LAYERS["aegl_cli"]
    return LAYERS[parts[1]] if parts[0] == "aegl" and len(parts) > 1 and parts[1] != "__init__" else None


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" if node.module == "aegl" else node.module for alias in node.names)


@pytest.mark.parametrize(("module", "path"), FILES, ids=[module for module, _ in FILES])
def test_imports_point_downwards(module: str, path: Path) -> None:
    own = _layer(module)
    if own is None:
        return
    above = [name for name in _imports(path) if (other := _layer(name)) is not None and other > own]
    assert not above


@pytest.mark.parametrize(("module", "path"), FILES, ids=[module for module, _ in FILES])
def test_files_can_be_read_in_one_go(module: str, path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_the_box_head_knows_no_method() -> None:
    from aegl.longtail import LOSSES

    text = (ROOT / "aegl" / "models" / "box_head.py").read_text(encoding="utf-8")
    assert not [name for name in (*LOSSES, *(loss.__name__ for loss in LOSSES.values())) if name in text]


@pytest.mark.parametrize(("module", "path"), FILES, ids=[module for module, _ in FILES])
def test_only_the_command_line_exits(module: str, path: Path) -> None:
    if module.startswith("aegl_cli"):
        return
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    names = {ast.unparse(function) for function in calls}
    assert not names & {"print", "sys.exit", "exit", "quit", "os._exit"}
