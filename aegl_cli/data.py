"""`aegl data check|stats|download`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl_cli.render import listing, nested
from aegl_cli.runner import run

VERBS = ("check", "stats", "download")


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    from aegl import tasks
    from aegl.errors import ConfigError

    verb, rest = (words[0], words[1:]) if words else ("", [])

    def unknown(overrides: dict[str, str], progress: Any) -> dict[str, Any]:
        raise ConfigError(f"data {verb}: unknown; say aegl data {'|'.join(VERBS)} data=<name, YAML, folder or JSON>")

    run_task = {"check": tasks.data_check, "stats": tasks.data_stats, "download": tasks.data_download}.get(
        verb, unknown
    )
    render = _render_check if verb == "check" else nested
    return run(rest, run_task, render, positional="data" if verb in VERBS else "verb")


def _render_check(result: dict[str, Any]) -> str:
    lines = []
    for split, report in result["splits"].items():
        lines.append(
            f"{split}: {report['images']} images, {report['annotations']} annotations, {report['classes']} classes"
        )
        if report["problems"]:
            rows = [[f"  {p['severity']}", p["kind"], p["message"]] for p in report["problems"]]
            lines.append(listing(rows))
        hidden = report["num_problems"] - len(report["problems"])
        lines.append(f"  {report['num_problems']} problems" + (f", {hidden} not shown" if hidden else ""))
    return "\n".join(lines)
