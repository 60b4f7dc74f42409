"""Tables of the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from aegl.plots.colors import band_label
from aegl.plotting.records import RunRecord

_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR")
_SHOWN_CONFUSIONS = 20


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text."""
    top = f"<thead><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table>{top}<tbody>{body}</tbody></table></div>'


def headline_table(found: Sequence[RunRecord]) -> str:
    """AP of boxes and masks in percent, by band; of several runs also how far each is from the first."""
    bands = found[0].band_names
    columns = ["AP", *(f"AP{band}" for band in bands), *_FIGURES[1:]]
    head = ["percent", *("AP", *(band_label(band) for band in bands), *_FIGURES[1:])]
    rows = []
    for kind in ("box", "mask", "boundary"):
        base = found[0].metrics.get(kind)
        for run in found:
            figures = run.metrics.get(kind)
            if figures:
                label = kind if len(found) == 1 else f"{run.name}, {kind}"
                rows.append([label, *(_percent(figures.get(c), None if run is found[0] else base, c) for c in columns)])
    return html_table(head, rows)


def class_rows(found: Sequence[RunRecord]) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """Columns and rows of the table of classes: plain values, which the page sorts and filters.

    Returns:
        ``[{"title", "digits"}]``, and a row for each class in the order of the labels: name, band, training instances
        (None where unknown), objects of the split, and AP in percent of every run by kind.
    """
    per_class = found[0].metrics["per_class"]
    columns: list[dict[str, Any]] = [{"title": "class", "digits": 0}, {"title": "band", "digits": 0}]
    columns += [{"title": "train", "digits": 0}, {"title": found[0].metrics["split"], "digits": 0}]
    values = [per_class["class"], per_class["band"], per_class["train_instances"], per_class["gt"]]
    for run in found:
        for kind in ("box", "mask"):
            if f"{kind}_AP" in run.metrics["per_class"]:
                title = f"{kind} AP" if len(found) == 1 else f"{run.name} {kind} AP"
                columns.append({"title": title, "digits": 1})
                values.append([_rounded(value) for value in run.metrics["per_class"][f"{kind}_AP"]])
    if len(found) == 1:
        columns.append({"title": "detections", "digits": 0})
        values.append(per_class["detections"])
    return columns, [list(row) for row in zip(*values, strict=True)]


def confusion_table(run: RunRecord) -> str:
    """The most frequent confusions of one run."""
    found = (run.metrics.get("confusions") or [])[:_SHOWN_CONFUSIONS]
    rows = [[c["class"], c["predicted"], str(c["count"]), f"{c['mean_score']:.2f}"] for c in found]
    if not rows:
        return f'<h3>{escape(run.name)}</h3><p class="soft">None.</p>'
    return f"<h3>{escape(run.name)}</h3>" + html_table(["class", "taken for", "objects", "mean score"], rows)


def _percent(value: float | None, base: dict[str, Any] | None, column: str) -> str:
    if value is None:
        return "–"
    text = f"{100 * value:.1f}"
    other = base.get(column) if base else None
    return text if other is None else f"{text} ({100 * (value - other):+.1f})"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)
