"""A search as data, as Markdown, as CSV, and its best configuration."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from aegl.comparison.report import aligned_table
from aegl.config.values import shown
from aegl.engine import runs

if TYPE_CHECKING:
    from aegl.tuning.study import Record

_FIGURES = ("box/AP", "mask/AP")


def summarize(records: Sequence[Record], folder: Path, objective: str, space: Mapping[str, str]) -> dict[str, Any]:
    """What a search found so far, JSON-able; figures in percent.

    Returns:
        ``objective``, ``unit``, ``space``, ``trials`` (each ``trial``, ``state``, ``value``, ``keys``, ``figures`` of
        the run's last evaluation, ``run``, ``iterations``, ``seconds``, ``error``), best first and those without a
        value last; ``best_trial``: the best complete one, or None; ``failed``.
    """
    trials = [_trial(record, folder / record.run) for record in records]
    trials.sort(key=lambda trial: (trial["state"] != "complete", -(trial["value"] or 0), trial["value"] is None))
    best = trials[0] if trials and trials[0]["state"] == "complete" else None
    return {
        "objective": objective,
        "unit": "percent",
        "space": dict(space),
        "trials": trials,
        "best_trial": best,
        "failed": [trial for trial in trials if trial["state"] == "failed"],
    }


def markdown(summary: Mapping[str, Any]) -> str:
    """The text of ``tune.md``."""
    keys = list(summary["space"])
    figures = [name for name in _FIGURES if any(trial["figures"].get(name) is not None for trial in summary["trials"])]
    rows = [["trial", "state", summary["objective"], *keys, *figures, "steps", "seconds"]]
    for trial in summary["trials"]:
        rows.append(
            [
                trial["trial"],
                trial["state"],
                _percent(trial["value"]),
                *(_short(trial["keys"].get(key)) for key in keys),
                *(_percent(trial["figures"].get(name)) for name in figures),
                "-" if trial["iterations"] is None else str(trial["iterations"]),
                "-" if trial["seconds"] is None else f"{trial['seconds']:.0f}",
            ]
        )
    parts = ["# Search", "", f"Best first by {summary['objective']}, in percent.", "", *aligned_table(rows), ""]
    if summary["failed"]:
        parts += ["## Failed", "", *(f"- {trial['trial']}: {trial['error']}" for trial in summary["failed"]), ""]
    parts += ["## Searched", "", *(f"- {key}: {allowed}" for key, allowed in summary["space"].items())]
    return "\n".join(parts) + "\n"


def as_csv(summary: Mapping[str, Any]) -> str:
    """The text of ``tune.csv``: a row per trial, figures in percent."""
    keys = list(summary["space"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", summary["objective"], *keys, *_FIGURES, "iterations", "seconds", "run", "error"])
    for trial in summary["trials"]:
        values = [trial["value"], *(trial["keys"].get(key) for key in keys), *map(trial["figures"].get, _FIGURES)]
        tail = [trial["iterations"], trial["seconds"], trial["run"], trial["error"]]
        writer.writerow([trial["trial"], trial["state"], *map(_cell, [*values, *tail])])
    return text.getvalue()


def best_yaml(keys: Mapping[str, Any], best: Mapping[str, Any], objective: str) -> str:
    """The configuration of the best trial, for ``cfg=``."""
    title = f"# {best['trial']}: {objective} {best['value']:.2f} percent. Train it with `aegl train cfg=<this file>`.\n"
    return title + yaml.safe_dump(dict(keys), sort_keys=False, allow_unicode=True)


def _trial(record: Record, run: Path) -> dict[str, Any]:
    file = run / runs.TRAINED_FILE
    result = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    metrics = result.get("metrics") or {}
    figures = {}
    for name in _FIGURES:
        kind, _, figure = name.partition("/")
        value = (metrics.get(kind) or {}).get(figure)
        figures[name] = None if value is None else 100 * value
    return {
        "trial": record.run,
        "state": record.state,
        "value": None if record.value is None else 100 * record.value,
        "keys": record.keys,
        "figures": figures,
        "run": str(run),
        "iterations": result.get("iterations"),
        "seconds": result.get("seconds"),
        "error": record.error,
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else shown(value)


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else value
