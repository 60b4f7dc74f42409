"""`aegl val`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.render import figures_table
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run(words, _val, _render)


def _val(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl import tasks

    return tasks.val(overrides, progress)


def _render(result: dict[str, Any]) -> str:
    return f"{figures_table(result)}\nwritten to {result['run']}"
