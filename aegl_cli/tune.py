"""`aegl tune`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run("tune", words, _tune, _render, passed=lambda result: result["best"] is not None)


def _tune(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl import tasks

    return tasks.tune(overrides, progress)


def _render(result: dict[str, Any]) -> str:
    from aegl.tuning.report import markdown

    best = "no trial is complete" if result["best"] is None else f"train the best with: aegl train cfg={result['best']}"
    return f"{markdown(result)}\nwritten to {result['report']} and {result['csv']}; {best}"
