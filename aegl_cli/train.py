"""`aegl train`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl_cli.render import figures_table
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    from aegl import tasks

    return run(words, tasks.train, _render)


def _render(result: dict[str, Any]) -> str:
    lines = [figures_table(result["metrics"])] if result["metrics"] else []
    lines.append(f"{result['iterations']} steps in {result['seconds']:.0f} s; best weights: {result['best']}")
    return "\n".join(lines)
