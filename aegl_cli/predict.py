"""`aegl predict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run("predict", words, _predict, _render)


def _predict(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl import tasks

    return tasks.predict(overrides, progress)


def _render(result: dict[str, Any]) -> str:
    lines = []
    for image in result["images"]:
        counts: dict[str, int] = {}
        for found in image["detections"]:
            counts[found["name"]] = counts.get(found["name"], 0) + 1
        listed = ", ".join(f"{number} {name}" for name, number in sorted(counts.items(), key=lambda c: -c[1]))
        lines.append(f"{image['path']}: {listed or 'nothing found'}")
    return "\n".join([*lines, f"written to {result['run']}"])
