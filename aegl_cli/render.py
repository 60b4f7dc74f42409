"""Results of verbs as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def figures_table(summary: Mapping[str, Any]) -> str:
    """Box and mask AP in percent, one row each, bands included."""
    columns = [*FIGURES, *(f"AP{band}" for band in summary["bands"]), "AR"]
    rows = [["", *columns]]
    for kind in ("box", "mask"):
        figures = summary.get(kind)
        if figures is not None:
            rows.append([kind, *(_percent(figures.get(column)) for column in columns)])
    return f"{summary['protocol']} protocol, {summary['split']} split, percent\n" + table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def listing(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def nested(values: Mapping[str, Any], indent: str = "") -> str:
    """A nested dictionary, one key a line."""
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{key}:", nested(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{key}: {shown}")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
