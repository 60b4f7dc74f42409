"""`aegl report`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""

    def task(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
        from aegl import tasks

        return tasks.report(overrides, progress)

    return run("report", words, task, lambda result: str(result["report"]), positional="runs", many=True)
