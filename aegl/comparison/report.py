"""A comparison as data, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aegl.comparison.outcomes import Outcome
from aegl.comparison.planning import MAY_DIFFER
from aegl.comparison.published import Published, published_for
from aegl.comparison.statistics import Figure, figure_names, figures_of
from aegl.config import Config, complete_parts, flatten
from aegl.config.fields import part_sections
from aegl.config.values import shown
from aegl.errors import ConfigError

_SAME_EVALUATION = ("protocol", "split", "max_det", "max_det_per", "bands")


def summarize(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What a comparison found, JSON-able; all figures in percent.

    Entries that were evaluated on other data or by other rules than others stand in a table of their own.

    Returns:
        ``tables`` (each with ``data``, the rules, ``ground_truth_hash``, ``figures``: their names in order, and
        ``entries``: ``name``, ``published_in``, ``seeds``, ``differs`` and ``figures``: ``published``, ``mean``,
        ``spread``, ``values`` by seed), ``runs`` and ``failed``.

    Raises:
        ConfigError: if the runs of one entry were evaluated differently.
    """
    by_entry: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_entry.setdefault(outcome.entry, []).append(outcome)
    good = {name: [o for o in own if o.result is not None] for name, own in by_entry.items()}
    tables: dict[str, list[str]] = {}
    for name, own in good.items():
        if own:
            tables.setdefault(_evaluation(own), []).append(name)
    configs = {name: own[0].config for name, own in by_entry.items()}
    return {
        "unit": "percent",
        "tables": [_table(json.loads(evaluation), {n: good[n] for n in names}) for evaluation, names in tables.items()],
        "differs": _differing_keys(configs),
        "runs": [_run(outcome) for outcome in outcomes],
        "failed": [_run(outcome) for outcome in outcomes if outcome.result is None],
    }


def markdown(summary: Mapping[str, Any]) -> str:
    """The text of ``compare.md``."""
    parts = ["# Comparison", ""]
    for table in summary["tables"]:
        parts += [f"## {table['data']}", "", _rules(table), "", *_rows(table), ""]
        sources = [f"- {e['name']}: {e['published_in']}" for e in table["entries"] if e["published_in"]]
        parts += ["Published in:", "", *sources, ""] if sources else [_NOTHING_PUBLISHED, ""]
    if summary["failed"]:
        parts += ["## Failed", "", *(f"- {r['entry']}, seed {r['seed']}: {r['error']}" for r in summary["failed"]), ""]
    if summary["differs"]:
        parts += ["## What the entries differ in", ""]
        parts += [f"- {name}: {_listed(own)}" for name, own in summary["differs"].items()]
        parts += [""]
    parts += ["## Runs", "", *(f"- {r['entry']}, seed {r['seed']}: `{r['run']}`" for r in summary["runs"])]
    return "\n".join(parts) + "\n"


def as_csv(summary: Mapping[str, Any]) -> str:
    """The text of ``compare.csv``: a row per entry and figure, in percent, with the value of every seed."""
    seeds = sorted({run["seed"] for run in summary["runs"]})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["data", "entry", "figure", "published", "mean", "spread", "runs", *(f"seed {seed}" for seed in seeds)]
    )
    for table in summary["tables"]:
        for entry in table["entries"]:
            for name, figure in entry["figures"].items():
                values = {int(seed): value for seed, value in figure["values"].items()}
                cells = (figure["published"], figure["mean"], figure["spread"])
                own = [_cell(values.get(seed)) for seed in seeds]
                writer.writerow([table["data"], entry["name"], name, *map(_cell, cells), len(values), *own])
    return text.getvalue()


_NOTHING_PUBLISHED = "No figures are published for these entries with this data, backbone and sampler."


def _evaluation(own: Sequence[Outcome]) -> str:
    """What the figures of an entry are figures of; entries with the same text may stand in one table."""
    found = set()
    for outcome in own:
        result = outcome.result or {}
        rules = {key: result["metrics"].get(key) for key in _SAME_EVALUATION}
        rules |= {"data": outcome.config.data, "ground_truth_hash": result.get("ground_truth_hash")}
        found.add(json.dumps(rules, sort_keys=True))
    if len(found) > 1:
        folders = ", ".join(str(outcome.folder) for outcome in own)
        raise ConfigError(
            f"{own[0].entry}: its runs ({folders}) were not evaluated on the same data by the same rules; has the data "
            "changed in between? Delete the older ones, and train them anew"
        )
    return found.pop()


def _table(evaluation: Mapping[str, Any], entries: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    published = {name: published_for(own[0].config) for name, own in entries.items()}
    names = figure_names(evaluation["bands"], (found.figures for found in published.values()))
    return {
        **evaluation,
        "figures": names,
        "entries": [_entry(n, own, published[n], names) for n, own in entries.items()],
    }


def _entry(name: str, own: Sequence[Outcome], published: Published, names: Sequence[str]) -> dict[str, Any]:
    metrics = {outcome.config.seed: (outcome.result or {})["metrics"] for outcome in own}
    figures = figures_of(names, metrics, published.figures)
    return {
        "name": name,
        "published_in": published.source,
        "seeds": sorted(metrics),
        "figures": {key: _figure(figure) for key, figure in figures.items()},
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "published": figure.published,
        "mean": figure.mean,
        "spread": figure.spread,
        "values": {str(seed): value for seed, value in figure.values.items()},
    }


def _run(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result or {}
    return {
        "entry": outcome.entry,
        "seed": outcome.config.seed,
        "run": str(outcome.folder),
        "error": outcome.error,
        "iterations": result.get("iterations"),
        "seconds": result.get("seconds"),
    }


def _differing_keys(configs: Mapping[str, Config]) -> dict[str, dict[str, Any]]:
    """By entry, the keys that are not the same in all entries; an option at its part's default is left out."""
    flat = {name: _without_defaults(config) for name, config in configs.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values if key not in (*MAY_DIFFER, "seed"))
    differing = [key for key in keys if len({repr(values.get(key)) for values in flat.values()}) > 1]
    if not differing:
        return {}
    return {name: {key: values[key] for key in differing if key in values} for name, values in flat.items()}


def _without_defaults(config: Config) -> dict[str, Any]:
    """Every key but the options of the method's parts that are at their defaults, whether they were given or not."""
    sections = {name: getattr(config, name) for name in part_sections()}
    bare = {name: type(section)(name=section.name) for name, section in sections.items()}
    options = {f"{name}.{option}" for name, section in sections.items() for option in section.options()}
    defaults = flatten(complete_parts(config.model_copy(update=bare)))
    return {k: v for k, v in flatten(config).items() if k not in options or v != defaults.get(k)}


def _rules(table: Mapping[str, Any]) -> str:
    limit = f"{table['max_det']:,} detections per {table['max_det_per']}"
    return f"{table['protocol']} protocol, {table['split']} split, {limit}; percent, mean ± sample standard deviation."


def _rows(table: Mapping[str, Any]) -> Iterable[str]:
    """A Markdown table: own figures, each followed by the published one where any entry has it."""
    entries, names = table["entries"], table["figures"]
    with_published = [n for n in names if any(e["figures"][n]["published"] is not None for e in entries)]
    header = ["entry", "runs"]
    for name in names:
        title = name.replace("/", " ")
        header += [title, f"published {title}"] if name in with_published else [title]
    lines = [header]
    for entry in entries:
        cells = [entry["name"], str(len(entry["seeds"]))]
        for name in names:
            figure = entry["figures"][name]
            cells.append(_own(figure))
            if name in with_published:
                cells.append(_percent(figure["published"]))
        lines.append(cells)
    return aligned_table(lines)


def aligned_table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Lines of a Markdown table, header first: the first column to the left, the others to the right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"| {'-' * widths[0]} | " + " | ".join(f"{'-' * (width - 1)}:" for width in widths[1:]) + " |"


def _own(figure: Mapping[str, Any]) -> str:
    spread = "" if figure["spread"] is None else f" ± {figure['spread']:.1f}"
    return f"{_percent(figure['mean'])}{spread}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in values.items()) or "none of the others' keys"
