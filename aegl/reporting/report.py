"""`report.html` of one run, or of several side by side: figures, classes, charts, pictures, and how to do it again."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from aegl._version import __version__
from aegl.engine import runs
from aegl.errors import RunError
from aegl.plots.charts.canvas import hex_colors, svg
from aegl.plots.colors import band_label
from aegl.plotting.figures import FIGURES, Inputs, draw
from aegl.plotting.pictures import classes_of, rows_of_pictures
from aegl.plotting.records import RunRecord, UnavailableError, open_records
from aegl.reporting.tables import class_rows, confusion_table, headline_table, html_table

REPORT_FILE = "report.html"
COMPARISON_FILE = "comparison.html"

_TEMPLATE = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
_KINDS = {"best": "Best", "worst": "Worst", "rarest": "Of the rarest classes"}
_NOT_HERE = ("repeat_factors", "confusions", "examples")
"""The first needs annotation files, the others stand on the page in another form."""
_QUALITY = 78


def write_report(folders: Sequence[str], output: Path, environment: Mapping[str, Any]) -> Path:
    """Write the page of runs that were evaluated on one ground truth; of several the first is the baseline.

    Args:
        folders: of the runs.
        output: the file to write.
        environment: versions and devices, as :func:`aegl.environment.describe_environment` tells them.

    Raises:
        DataError: for a folder that is no run's, a run that was never evaluated, or runs of different ground truth.
        RunError: if the file cannot be written.
    """
    found = open_records(list(folders))
    hashes = {run.metrics["ground_truth_hash"] for run in found}
    if len(hashes) > 1:
        names = ", ".join(str(run.folder) for run in found)
        raise UnavailableError(f"{names}: were not evaluated on the same ground truth, so their figures do not compare")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"output={output}: cannot be written ({error.strerror})") from error
    runs.write_text(output, _page(found, environment))
    return output


def _page(found: Sequence[RunRecord], environment: Mapping[str, Any]) -> str:
    title = " and ".join(run.name for run in found) if len(found) < 3 else f"{len(found)} runs"
    columns, rows = class_rows(found)
    body = "\n".join([_header(title, found), "<main>", *_sections(found, columns, environment), "</main>"])
    slots = {
        "TITLE_TEXT": escape(f"{title} · aegl"),
        "BODY_HTML": body,
        # Whatever a class is called, nothing of it may end the element it stands in.
        "DATA_JSON": json.dumps(_data(found[0], columns, rows), allow_nan=False).replace("<", "\\u003c"),
    }
    page = _TEMPLATE
    for slot, text in slots.items():
        head, _, tail = page.partition(slot)
        page = head + text + tail
    return page


def _header(title: str, found: Sequence[RunRecord]) -> str:
    metrics = found[0].metrics
    counts = metrics["counts"]
    about = (
        f"{metrics['protocol']} protocol, {metrics['split']} split: {counts['images']:,} images, "
        f"{counts['annotations']:,} objects, {counts['classes']:,} classes; {metrics['max_det']} detections per "
        f"{metrics['max_det_per']}; ground truth {metrics['ground_truth_hash'][:12]}; aegl {__version__}"
    )
    links = {"classes": "Classes", "charts": "Charts", "images": "Images", "confusions": "Confusions", "again": "Again"}
    nav = " ".join(f'<a href="#{key}">{name}</a>' for key, name in links.items())
    return f'<header><h1>{escape(title)}</h1><div class="soft">{escape(about)}</div><nav>{nav}</nav></header>'


def _sections(
    found: Sequence[RunRecord], columns: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]
) -> Iterator[str]:
    yield _section("figures", "Figures", headline_table(found))
    yield _section("classes", "Classes", _class_tools(_bands(found[0]), columns))
    yield _section("charts", "Charts", f'<div class="charts">{"".join(_charts(found))}</div>')
    yield _section("images", "Images", "".join(_pictures(found)) or '<p class="soft">No image file was found.</p>')
    yield _section("confusions", "Taken for another class", "".join(map(confusion_table, found)))
    yield _section("again", "Again", "".join(_again(found, environment)))


def _section(key: str, title: str, inside: str) -> str:
    return f'<section id="{key}"><h2>{title}</h2>{inside}</section>'


def _class_tools(bands: Sequence[Mapping[str, str]], columns: Sequence[Mapping[str, Any]]) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" data-band="{escape(band["name"])}" checked>'
        f'<span class="swatch" style="background:{band["color"]}"></span>{escape(band["label"])}</label>'
        for band in bands
    )
    head = "".join(
        f'<th{" class=left" if place < 2 else ""}><button type="button">{escape(column["title"])}</button></th>'
        for place, column in enumerate(columns)
    )
    return (
        '<div class="tools"><input type="search" id="search" placeholder="Find a class" aria-label="Find a class">'
        f'{boxes}<span class="soft" id="count" aria-live="polite"></span></div>'
        f'<div class="wide"><table id="class-table"><thead><tr>{head}</tr></thead><tbody></tbody></table></div>'
    )


def _data(run: RunRecord, columns: Sequence[Mapping[str, Any]], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """What the script of the page reads: of several runs the first one's bands, and the table of classes."""
    return {
        "bands": _bands(run),
        "columns": columns,
        "rows": rows,
        "sort": {"column": next(k for k, c in enumerate(columns) if c["title"] == "train"), "rising": False},
    }


def _bands(run: RunRecord) -> list[dict[str, str]]:
    colors = hex_colors(len(run.band_names))
    return [
        {"name": name, "label": band_label(name), "color": color}
        for name, color in zip(run.band_names, colors, strict=True)
    ]


def _charts(found: Sequence[RunRecord]) -> Iterator[str]:
    inputs = Inputs(found, ())
    for name, kind in FIGURES.items():
        if name in _NOT_HERE:
            continue
        try:
            for stem, figure in draw(name, inputs):
                run = stem.partition("-")[2]
                caption = f"{kind.about}: {run}" if run else kind.about
                picture = f'<div class="chart" role="img" aria-label="{escape(caption)}">{svg(figure)}</div>'
                yield f'<figure id="chart-{escape(stem)}"><figcaption>{escape(caption)}</figcaption>{picture}</figure>'
        except UnavailableError:
            continue  # e.g. gradients, which few runs track


def _pictures(found: Sequence[RunRecord]) -> Iterator[str]:
    classes = classes_of(found[0])
    heads = ["ground truth", *(run.name for run in found)]
    for kind, title in _KINDS.items():
        if len(found) > 1 and kind != "rarest":
            continue  # each run has best and worst images of its own
        try:
            rows = rows_of_pictures([run.examples[kind] for run in found], classes)
        except UnavailableError:
            continue
        if rows:
            pictures = "".join(_picture_row(caption, row, heads) for caption, row in rows)
            yield f'<h3>{title}</h3><div class="pictures" style="--columns:{len(heads)}">{pictures}</div>'


def _picture_row(caption: str, pictures: Sequence[Image.Image], heads: Sequence[str]) -> str:
    figures = []
    for head, picture in zip(heads, pictures, strict=True):
        image = f'<img src="{_data_url(picture)}" alt="{escape(f"{caption}: {head}")}">'
        figures.append(f"<figure><figcaption>{escape(head)}</figcaption>{image}</figure>")
    return f'<p class="soft">{escape(caption)}</p><div>{"".join(figures)}</div>'


def _data_url(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _again(found: Sequence[RunRecord], environment: Mapping[str, Any]) -> Iterator[str]:
    for run in found:
        args = run.folder / runs.ARGS_FILE
        if args.is_file():
            verb = "train" if (run.folder / runs.RESULTS_FILE).is_file() else "val"
            yield f"<h3>{escape(run.name)}</h3><pre>aegl {verb} cfg={escape(str(args))}</pre>"
            text = escape(args.read_text(encoding="utf-8"))
            yield f"<details><summary>configuration</summary><pre>{text}</pre></details>"
    rows = [[name, str(value)] for name, value in _flat(environment)]
    yield f"<details><summary>environment of this page</summary>{html_table([], rows)}</details>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else value
