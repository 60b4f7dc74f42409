"""`aegl methods [name]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.render import listing, table
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run("methods", words, _methods, _render, positional="name")


def _methods(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl.config.shipped import available, read
    from aegl.errors import ConfigError

    unknown = sorted(set(overrides) - {"name"})
    if unknown:
        raise ConfigError(f"{', '.join(unknown)}: unknown; say aegl methods, or aegl methods <name>")
    if "name" not in overrides:
        return {"methods": [_entry(name, read("method", name)) for name in available("method")]}
    return {**_entry(overrides["name"], read("method", overrides["name"])), "options": _options(overrides["name"])}


def _options(method: str) -> list[dict[str, Any]]:
    """Every option of the method's parts, with the value that the method gives it."""
    from aegl.config import complete_parts, load_config
    from aegl.longtail.parts import NONE, REGISTRIES

    config = complete_parts(load_config({"method": method}))
    chosen = {kind: getattr(config, kind) for kind in REGISTRIES if getattr(config, kind).name != NONE}
    return [
        {**vars(option), "key": f"{kind}.{option.name}", "value": part.options()[option.name]}
        for kind, part in chosen.items()
        for option in REGISTRIES[kind].describe(part.name)
    ]


def _entry(name: str, content: dict[str, Any]) -> dict[str, Any]:
    bundle = {key: value for key, value in content.items() if key != "reference"}
    return {"name": name, "bundle": bundle, **content.get("reference", {})}


def _render(result: dict[str, Any]) -> str:
    if "methods" in result:
        rows = [["method", "year", "touches", "paper"]]
        rows += [[m["name"], str(m["year"]), ", ".join(m["touches"]), m["paper"]] for m in result["methods"]]
        return listing(rows) + "\naegl methods <name> lists a method's options and published numbers."
    lines = [f"{result['name']}: {result['paper']} ({result['venue']} {result['year']})"]
    lines += [result["note"]] if result.get("note") else []
    lines += ["", f"method={result['name']} stands for:", *_bundle(result["bundle"]), "", "Options:"]
    for option in result["options"]:
        lines.append(f"  {option['key']}={_shown(option['value'])}  ({option['allowed']}) {option['help']}")
    lines += ["", "Published (percent):", _published(result.get("published", []))]
    lines += ["", "Measured with aegl (percent):", _published(result["measured"])] if result.get("measured") else []
    return "\n".join(lines)


def _bundle(bundle: dict[str, Any], section: str = "") -> list[str]:
    """Lines of ``key=value``; what a part's own options are stands with them."""
    lines = []
    for key, value in bundle.items():
        if isinstance(value, dict):
            lines += _bundle(value, f"{section}{key}.")
        else:
            lines.append(f"  {section}{key}={_shown(value)}")
    return lines


def _shown(value: Any) -> str:
    from aegl.config.values import shown

    return "null" if value is None else shown(value)


def _published(rows: list[dict[str, Any]]) -> str:
    columns = ("source", "data", "backbone", "sampler", "box_ap", "mask_ap", "ap_r", "ap_c", "ap_f")
    return (
        table([list(columns), *([str(row.get(column, "-")) for column in columns] for row in rows)]) if rows else "  -"
    )
