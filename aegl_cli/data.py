"""`aegl data check|stats|download`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.render import listing, nested
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    verb, rest = (words[0], words[1:]) if words else ("", [])

    def task(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
        from aegl import tasks
        from aegl.errors import ConfigError

        known = {"check": tasks.data_check, "stats": tasks.data_stats, "download": tasks.data_download}
        if verb not in known:
            mistake = f"data {verb}: unknown" if verb else "data: no verb given"
            raise ConfigError(f"{mistake}; say aegl data {'|'.join(known)} data=<name, YAML, folder or JSON>")
        return known[verb](overrides, progress)

    render = {"check": _render_check, "stats": _render_stats}.get(verb, nested)
    return run(rest, task, render, positional="data", passed=lambda result: bool(result.get("ok", True)))


def _render_check(result: dict[str, Any]) -> str:
    lines = []
    for split, report in _merged(result["splits"]).items():
        lines.append(
            f"{split}: {report['images']} images, {report['annotations']} annotations, {report['classes']} classes"
        )
        if report["problems"]:
            rows = [[f"  {p['severity']}", p["kind"], p["message"]] for p in report["problems"]]
            lines.append(listing(rows))
        hidden = report["num_problems"] - len(report["problems"])
        number = report["num_problems"]
        lines.append(f"  {number} problem{'' if number == 1 else 's'}" + (f", {hidden} not shown" if hidden else ""))
    return "\n".join(lines)


def _render_stats(result: dict[str, Any]) -> str:
    splits = {name: value for name, value in result.items() if isinstance(value, dict)}
    return nested({name: value for name, value in result.items() if name not in splits} | _merged(splits))


def _merged(splits: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One entry, `train and val`, for splits of which the same is told, as when one file serves as both."""
    groups: list[tuple[list[str], dict[str, Any]]] = []
    for name, content in splits.items():
        same = next((names for names, other in groups if other == content), None)
        if same is None:
            groups.append(([name], content))
        else:
            same.append(name)
    return {" and ".join(names): content for names, content in groups}
