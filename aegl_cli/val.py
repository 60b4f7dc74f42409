"""`aegl val`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.render import bands_table, figures_table, listing
from aegl_cli.runner import run

_FILES = (
    ("figures and confusions", "metrics"),
    ("figures per class", "per_class"),
    ("precision-recall curves", "pr_curves"),
    ("all of it as a page", "report"),
)
"""What lies where, and the key of the result that tells."""


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run("val", words, _val, _render)


def _val(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl import tasks

    return tasks.val(overrides, progress)


def _render(result: dict[str, Any]) -> str:
    parts = [figures_table(result), bands_table(result)]
    official = result.get("official")
    if official is not None:
        parts.append(f"figures of {official['package']}; aegl's differ by {official['largest_difference']:.1g} at most")
    files = [(label, result[key]) for label, key in _FILES if key in result]
    return "\n\n".join([*parts, listing(files)])
