"""`aegl serve`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run("serve", words, _serve, _render)


def _serve(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl.serving_tasks import serve  # not through aegl.tasks, which needs torch

    return serve(overrides, progress)


def _render(result: dict[str, Any]) -> str:
    return f"{result['weights']}: no longer served ({result['stopped_by']}); every request was answered or refused"
