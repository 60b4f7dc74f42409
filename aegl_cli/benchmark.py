"""`aegl benchmark`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.render import table
from aegl_cli.runner import run

_COLUMNS = (
    ("p50 ms", "p50_ms", ".1f"),
    ("p95 ms", "p95_ms", ".1f"),
    ("images/s", "images_per_s", ".2f"),
    ("first call s", "first_call_s", ".1f"),
    ("process MB", "process_mb", ".0f"),
    ("GPU MB", "gpu_mb", ".0f"),
)
"""Heading, key of the row, and how it is written."""


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run("benchmark", words, _benchmark, _render)


def _benchmark(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl import tasks

    return tasks.benchmark(overrides, progress)


def _render(result: dict[str, Any]) -> str:
    height, width = result["size"]
    head = (
        f"{result['weights']}: images of {height}x{width}, {result['repeats']} runs each, {result['threads']} threads "
        "on the CPU; a call takes images in memory and gives detections in memory"
    )
    measured = [row for row in result["rows"] if row["skipped"] is None]
    kinds = [kind for kind in ("box", "mask") if any(kind in scores for scores in (result["ap"] or {}).values())]
    rows = [["engine", "device", "batch", *(heading for heading, _, _ in _COLUMNS), *(f"{kind} AP" for kind in kinds)]]
    for row in measured:
        scores = (result["ap"] or {}).get(row["engine"], {})
        figures = [_figure(row[key], form) for _, key, form in _COLUMNS]
        rows.append([row["engine"], row["device"], str(row["batch"]), *figures, *(_percent(scores, k) for k in kinds)])
    lines = [head, table(rows), *_reasons(result["rows"])]
    if result["placement"]:
        lines.append(result["placement"]["text"])
    return "\n".join(lines)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _percent(scores: Mapping[str, Any], kind: str) -> str:
    return f"{100 * scores[kind]:.1f}" if scores.get(kind) is not None else "-"


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each engine that was left out, whatever the batch size."""
    return list(dict.fromkeys(f"{row['engine']} not measured: {row['skipped']}" for row in rows if row["skipped"]))
