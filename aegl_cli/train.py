"""`aegl train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.render import figures_table
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run("train", words, _train, _render)


def _train(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl import tasks

    return tasks.train(overrides, progress)


def _render(result: dict[str, Any]) -> str:
    lines = [figures_table(result["metrics"])] if result["metrics"] else []
    lines.append(f"{result['iterations']} steps in {result['seconds']:.0f} s; best weights: {result['best']}")
    if "report" in result:
        lines.append(f"report: {result['report']}")
    return "\n".join(lines)
