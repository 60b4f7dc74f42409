"""`aegl compare`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run("compare", words, _compare, _render, passed=lambda result: not result["failed"])


def _compare(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl import tasks

    return tasks.compare(overrides, progress)


def _render(result: dict[str, Any]) -> str:
    from aegl.comparison.report import markdown

    return f"{markdown(result)}\nwritten to {result['report']} and {result['csv']}"
