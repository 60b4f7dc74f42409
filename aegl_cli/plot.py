"""`aegl plot`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.render import listing
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""

    def task(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
        from aegl import tasks

        return tasks.plot(overrides, progress)

    return run("plot", words, task, _render, positional="runs", many=True)


def _render(result: dict[str, Any]) -> str:
    drawn = [[f"  {name}", ", ".join(files)] for name, files in result["figures"].items()]
    missing = [[f"  {name}", reason] for name, reason in result["left_out"].items()]
    lines = [f"{result['output']}:", listing(drawn) if drawn else "  nothing could be drawn"]
    return "\n".join(lines + (["left out:", listing(missing)] if missing else []))
