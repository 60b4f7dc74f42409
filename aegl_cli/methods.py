"""`aegl methods [name]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.render import listing, table
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run(words, _methods, _render, positional="name")


def _methods(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl.config.shipped import available, read
    from aegl.errors import ConfigError

    unknown = sorted(set(overrides) - {"name"})
    if unknown:
        raise ConfigError(f"{', '.join(unknown)}: unknown; say aegl methods, or aegl methods <name>")
    if "name" not in overrides:
        return {"methods": [_entry(name, read("method", name)) for name in available("method")]}
    from aegl.longtail import LOSSES

    content = read("method", overrides["name"])
    options = LOSSES.describe(content["loss"]["name"])
    return {**_entry(overrides["name"], content), "options": [vars(option) for option in options]}


def _entry(name: str, content: dict[str, Any]) -> dict[str, Any]:
    bundle = {key: value for key, value in content.items() if key != "reference"}
    return {"name": name, "bundle": bundle, **content.get("reference", {})}


def _render(result: dict[str, Any]) -> str:
    if "methods" in result:
        rows = [["method", "year", "touches", "paper"]]
        rows += [[m["name"], str(m["year"]), ", ".join(m["touches"]), m["paper"]] for m in result["methods"]]
        return listing(rows) + "\naegl methods <name> lists a method's options and published numbers."
    lines = [f"{result['name']}: {result['paper']} ({result['venue']} {result['year']})", result.get("note", ""), ""]
    lines += ["Options:"]
    for option in result["options"]:
        lines.append(f"  loss.{option['name']}={option['default']}  ({option['allowed']}) {option['help']}")
    lines += ["", "Published (percent):", _published(result.get("published", []))]
    return "\n".join(line for line in lines if line is not None)


def _published(rows: list[dict[str, Any]]) -> str:
    columns = ("source", "data", "backbone", "sampler", "box_ap", "mask_ap", "ap_r", "ap_c", "ap_f")
    return (
        table([list(columns), *([str(row.get(column, "-")) for column in columns] for row in rows)]) if rows else "  -"
    )
