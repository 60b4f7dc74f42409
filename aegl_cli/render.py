"""Results of verbs as text for people."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from aegl_cli.terminal import terminal_width

KINDS = ("box", "mask", "boundary")
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
BAND_FIGURES = ("AP", "AP50", "AR")
_NARROWEST = 20
"""Characters below which a column is not wrapped."""


def figures_table(summary: Mapping[str, Any]) -> str:
    """AP of boxes and masks in percent, one row each, bands included, and what they are figures of."""
    columns = [*FIGURES, *(f"AP{band}" for band in summary["bands"]), "AR"]
    rows = [["", *columns]]
    for kind in _kinds(summary):
        rows.append([kind, *(_percent(summary[kind].get(column)) for column in columns)])
    limit = f"{summary['max_det']:,} detections per {summary['max_det_per']}"
    return f"{summary['protocol']} protocol, {summary['split']} split, {limit}, percent\n" + table(rows)


def bands_table(summary: Mapping[str, Any]) -> str:
    """Figures of every frequency band in percent, one row each, rarest first."""
    kinds = _kinds(summary)
    rows = [["band", "classes", *(f"{kind} {figure}" for kind in kinds for figure in BAND_FIGURES)]]
    for band, figures in summary["per_band"].items():
        shown = [_percent(figures[kind][figure]) for kind in kinds for figure in BAND_FIGURES]
        rows.append([band, str(figures["classes"]), *shown])
    return table(rows)


def _kinds(summary: Mapping[str, Any]) -> list[str]:
    return [kind for kind in KINDS if summary.get(kind) is not None]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def listing(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Columns aligned to the left.

    Args:
        rows: of equal length.
        width: characters of a line, into which the words of the last column are wrapped; by default those of the
            terminal that standard output is, and if it is none, one line a row.
    """
    width = width or terminal_width(sys.stdout)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    indent = sum(each + 2 for each in widths)
    lines = []
    for row in rows:
        first, *further = _wrapped(row[-1], width - indent) if width else [row[-1]]
        lines.append("  ".join([*(cell.ljust(each) for cell, each in zip(row, widths, strict=False)), first]).rstrip())
        lines += [" " * indent + line for line in further]
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of whole words; a path stays whole, so that it can be copied. Where no column would be left: one line."""
    if width < _NARROWEST:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


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
