"""`aegl export`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    from aegl import tasks

    return run(words, tasks.export, _render)


def _render(result: dict[str, Any]) -> str:
    parity = result.get("parity")
    lines = [parity["text"]] if parity else ["parity: not checked (parity=false)"]
    return "\n".join([*lines, f"{result['file']} ({result['megabytes']:.1f} MB, opset {result['opset']})"])
