"""`aegl export`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run(
        "export", words, _export, _render, passed=lambda result: (result["parity"] or {}).get("passed") is not False
    )


def _export(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl import tasks

    return tasks.export(overrides, progress)


def _render(result: dict[str, Any]) -> str:
    parity = result.get("parity")
    lines = [parity["text"]] if parity else ["parity: not checked (parity=false)"]
    if (result.get("precision") or {}).get("text"):
        lines.append(result["precision"]["text"])
    if result.get("placement"):
        lines.append(result["placement"]["text"])
    if result.get("repository"):
        lines.append(f"{result['repository']}: Triton models {', '.join(result['models'])}")
    return "\n".join([*lines, f"{result['file']} ({result['megabytes']:.1f} MB, opset {result['opset']})"])
