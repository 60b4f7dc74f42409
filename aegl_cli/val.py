"""`aegl val`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl_cli.render import figures_table
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    from aegl import tasks

    return run(words, tasks.val, _render)


def _render(result: dict[str, Any]) -> str:
    return f"{figures_table(result)}\nwritten to {result['run']}"
