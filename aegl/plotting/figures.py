"""Every figure by name: what it shows, and how it is made of runs or data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from aegl.plots.charts import class_ap, confusions, counts, curves, examples, gradients, repeats, scores, training
from aegl.plotting.pictures import classes_of, rows_of_pictures
from aegl.plotting.records import RunRecord, UnavailableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Item = TypeVar("Item")

_NOT_TERMS = frozenset({"iteration", "epoch", "seconds", "lr", "images_per_second", "data_share", "memory_mb", "loss"})


@dataclass(frozen=True)
class ClassCounts:
    """What a data set's figures are made of.

    Args:
        name: of the data set.
        instances: ``[C]`` training instances.
        images: ``[C]`` training images, or None where only instances are known.
        repeat: ``[C]`` repeat factors, or None where only instances are known.
        threshold: of the repeat factors.
        class_band: ``[C]`` index of each class into ``band_names``, or None where only instances are known.
        band_names: rarest first.
    """

    name: str
    instances: np.ndarray
    images: np.ndarray | None = None
    repeat: np.ndarray | None = None
    threshold: float = 0.0
    class_band: np.ndarray | None = None
    band_names: Sequence[str] = ()


@dataclass(frozen=True)
class Inputs:
    """What figures may be made of.

    Args:
        runs: runs, the baseline first.
        data: data sets.
        order: of the classes in ``class_ap``.
        measure: of ``gradients``.
    """

    runs: Sequence[RunRecord]
    data: Sequence[ClassCounts]
    order: class_ap.Order = "each"
    measure: gradients.Measure = "share"


Drawn = Iterator[tuple[str, "Figure"]]
"""Names of files, without suffix, and their figures."""


def draw(name: str, inputs: Inputs) -> Drawn:
    """The figure of that name, or where it shows one run only, one for each run.

    Raises:
        UnavailableError: if it cannot be made of these inputs; says what is missing.
    """
    return FIGURES[name].make(inputs)


@dataclass(frozen=True)
class Kind:
    """A figure: one line about it, and its maker."""

    about: str
    make: Callable[[Inputs], Drawn]


def _counts(inputs: Inputs) -> Drawn:
    series = {data.name: data.instances for data in inputs.data}
    if not series:
        series = {run.name: run.train_instances for run in _needed(inputs.runs, "data=... or runs=...")[:1]}
    yield "counts", counts.class_counts(series)


def _repeats(inputs: Inputs) -> Drawn:
    known = [data for data in inputs.data if data.images is not None and data.repeat is not None]
    for data in _needed(known, "data=..., with annotation files"):
        assert data.images is not None and data.repeat is not None and data.class_band is not None
        name = "repeat_factors" if len(known) == 1 else f"repeat_factors-{data.name}"
        bands = data.class_band, data.band_names
        yield name, repeats.repeat_factors(data.images, data.repeat, *bands, threshold=data.threshold)


def _gradients(inputs: Inputs) -> Drawn:
    series = {run.name: gradients.NegativeGradient(*run.gradients.values()) for run in _needed(inputs.runs, "runs=...")}
    yield "gradients", gradients.foreground_share(series, inputs.measure)


def _class_ap(inputs: Inputs) -> Drawn:
    first = _same_classes(inputs.runs)
    yield (
        "class_ap",
        class_ap.ap_by_class(
            {run.name: run.class_ap("box") for run in inputs.runs},
            class_band=first.class_band,
            band_names=first.band_names,
            instances=first.train_instances if inputs.order == "count" else None,
            order=inputs.order,
        ),
    )


def _ap_by_count(inputs: Inputs) -> Drawn:
    first = _same_classes(inputs.runs)
    series = {run.name: run.class_ap(first.kind) for run in inputs.runs}
    yield "ap_by_count", class_ap.ap_by_count(series, first.train_instances, kind=first.kind)


def _pr_curves(run: RunRecord) -> Figure:
    return curves.precision_recall(
        run.curves["recall"],
        run.curves[f"{run.kind}_precision"],
        class_band=run.class_band,
        band_names=run.band_names,
        title=f"{run.name}: {run.kind} precision, mean over IoU 0.5 to 0.95",
    )


def _scores(run: RunRecord) -> Figure:
    counted = _score_counts(run)
    return scores.score_histograms(counted["edges"], counted["per_band"], title=_about_scores(run))


def _calibration(run: RunRecord) -> Figure:
    counted = _score_counts(run)
    return scores.calibration(counted["edges"], counted["per_band"], title=_about_scores(run))


def _about_scores(run: RunRecord) -> str:
    return f"{run.name}: detections that are true at {run.kind} IoU 0.5"


def _score_counts(run: RunRecord) -> Mapping[str, Any]:
    if "scores" not in run.metrics:
        raise UnavailableError(f"{run.folder}: was evaluated by an older version, without scores; evaluate it again")
    found: Mapping[str, Any] = run.metrics["scores"][run.kind]
    return found


def _confusions(run: RunRecord) -> Figure:
    found = run.metrics.get("confusions") or []
    if not found:
        raise UnavailableError(f"{run.folder}: no object was taken for another class (or confusions=0)")
    pairs = [(c["class"], c["predicted"], c["count"]) for c in found]
    return confusions.top_confusions(pairs, title=f"{run.name}: what is taken for what")


def _examples(inputs: Inputs) -> Drawn:
    first = _same_classes(inputs.runs)
    rows = rows_of_pictures([run.examples["rarest"] for run in inputs.runs], classes_of(first))
    if not rows:
        raise UnavailableError(f"{first.folder}: the files of its example images are gone")
    yield "examples", examples.picture_rows(["ground truth", *(run.name for run in inputs.runs)], rows)


def _training(inputs: Inputs) -> Drawn:
    series = {run.name: run.results for run in _needed(inputs.runs, "runs=...")}
    yield "losses", training.losses(series)
    for run in inputs.runs:
        terms = [name for name in run.results if name not in _NOT_TERMS and "/" not in name and any(run.results[name])]
        yield _name_for("loss_terms", run, inputs), training.loss_terms(run.results, terms)
    figures = [name for name in ("box/AP", "mask/AP", *_band_columns(inputs.runs[0])) if _shown(name, series)]
    if figures:
        yield "evaluations", training.evaluations(series, figures)


def _band_columns(run: RunRecord) -> list[str]:
    of_masks = {name.removeprefix("mask/AP"): name for name in run.results if name.startswith("mask/AP")}
    return [column for figure, column in of_masks.items() if figure not in ("", "50", "75", "s", "m", "l")]


def _shown(name: str, series: Mapping[str, training.Columns]) -> bool:
    return any(value is not None for columns in series.values() for value in columns.get(name, ()))


def _of_each_run(name: str, make: Callable[[RunRecord], Figure]) -> Callable[[Inputs], Drawn]:
    def makes(inputs: Inputs) -> Drawn:
        for run in _needed(inputs.runs, "runs=..."):
            yield _name_for(name, run, inputs), make(run)

    return makes


def _name_for(name: str, run: RunRecord, inputs: Inputs) -> str:
    return name if len(inputs.runs) == 1 else f"{name}-{run.name.replace('/', '-')}"


def _needed(items: Sequence[Item], remedy: str) -> Sequence[Item]:
    if not items:
        raise UnavailableError(f"needs {remedy}")
    return items


def _same_classes(found: Sequence[RunRecord]) -> RunRecord:
    """The first run, after making sure that all have its classes and ground truth."""
    first = _needed(found, "runs=...")[0]
    for run in found:
        if run.metrics["ground_truth_hash"] != first.metrics["ground_truth_hash"]:
            raise UnavailableError(f"{run.folder}: was evaluated on other ground truth than {first.folder}")
    return first


FIGURES: Mapping[str, Kind] = {
    "counts": Kind("training instances of every class (the paper's Figure 4)", _counts),
    "repeat_factors": Kind("what repeat-factor sampling does to every class", _repeats),
    "training": Kind("losses, learning rate and AP along training", _training),
    "gradients": Kind("where each class's negative gradient comes from (Figure 1)", _gradients),
    "class_ap": Kind("box AP of every class by band (Figure 5)", _class_ap),
    "ap_by_count": Kind("AP of every class against its training instances", _ap_by_count),
    "pr_curves": Kind("precision against recall by band", _of_each_run("pr_curves", _pr_curves)),
    "scores": Kind("scores of true and false detections by band", _of_each_run("scores", _scores)),
    "calibration": Kind("how often a detection of a score is true, by band", _of_each_run("calibration", _calibration)),
    "examples": Kind("images of the rarest classes: ground truth and what each run found (Figure 6)", _examples),
    "confusions": Kind("the most frequent confusions of classes", _of_each_run("confusions", _confusions)),
}
