"""`aegl data check|stats|advise|download|convert|split|coco_lt|segments`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.render import listing, nested, table
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    verb, rest = (words[0], words[1:]) if words else ("", [])

    def task(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
        from aegl import tasks
        from aegl.config.hints import did_you_mean
        from aegl.errors import ConfigError

        known = {
            "check": tasks.data_check,
            "stats": tasks.data_stats,
            "advise": tasks.data_advise,
            "download": tasks.data_download,
            "convert": tasks.data_convert,
            "split": tasks.data_split,
            "coco_lt": tasks.data_coco_lt,
            "segments": tasks.data_segments,
        }
        if verb not in known:
            mistake = f"data {verb}: unknown{did_you_mean(verb, known)}" if verb else "data: no verb given"
            raise ConfigError(f"{mistake}; say aegl data {'|'.join(known)} data=<name, YAML, folder or JSON>")
        return known[verb](overrides, progress)

    render = {"check": _render_check, "stats": _render_stats, "advise": _render_advice}.get(verb, nested)
    return run("data", rest, task, render, positional="data", passed=lambda result: bool(result.get("ok", True)))


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
    if "sampling" in result:
        lines += ["", _render_sampling(result["sampling"])]
    return "\n".join(lines)


def _render_sampling(plan: dict[str, Any]) -> str:
    left_out = f", {plan['images_left_out']} without objects left out" if plan["images_left_out"] else ""
    head = f"sampler={plan['sampler']}: {plan['images_per_epoch']:.0f} images an epoch, from {plan['images']}{left_out}"
    rows = [["band", "classes", "instances", "seen an epoch", "mean repeat"]]
    for name, band in plan["bands"].items():
        repeat = "-" if band["mean_repeat"] is None else f"{band['mean_repeat']:.2f}"
        rows.append([name, str(band["classes"]), str(band["instances"]), f"{band['instances_seen']:.0f}", repeat])
    boosted = [
        f"  {entry['class']} ({entry['band']}): {entry['instances']} -> {entry['instances_seen']:.0f}, "
        f"x {entry['repeat']:.2f}"
        for entry in plan["boosted_along"]
    ]
    return "\n".join([head, table(rows), *(["boosted along with rarer classes:", *boosted] if boosted else [])])


def _render_stats(result: dict[str, Any]) -> str:
    splits = {name: value for name, value in result.items() if isinstance(value, dict)}
    return nested({name: value for name, value in result.items() if name not in splits} | _merged(splits))


def _render_advice(result: dict[str, Any]) -> str:
    facts = {**result["facts"], "bands": ", ".join(f"{n} {name}" for name, n in result["facts"]["bands"].items())}
    rows = [[f"  {p['argument']}", p["reason"]] for p in result["proposals"]]
    lines = [nested({"data": result["data"], **facts}), "", "proposed, as a start:", listing(rows)]
    if result["warnings"]:
        lines += ["", "mind:", *(f"  {warning}" for warning in result["warnings"])]
    lines += ["", result["train"], "", "and to see whether another method does better:", result["compare"]]
    if result["trial"]:
        lines += ["", "there is no GPU here; minutes of a CPU, to see it work rather than to find things:"]
        lines.append(result["trial"])
    return "\n".join(lines)


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
