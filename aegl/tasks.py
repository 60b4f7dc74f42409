"""One function per verb: what the user typed in, a plain dictionary out.

The command line and :class:`aegl.Detector` call these. Every function takes ``overrides`` (dotted keys to values) and a
:class:`aegl.progress.Progress`. Where a trained model is involved, the configuration it was trained with lies below the
overrides: ``aegl val weights=best.pt`` evaluates on the model's own data at its own size unless told otherwise.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegl.config import Config, load_config
from aegl.data_tasks import (
    data_advise,
    data_check,
    data_coco_lt,
    data_convert,
    data_download,
    data_segments,
    data_split,
    data_stats,
    open_source,
)
from aegl.errors import DataError
from aegl.export_tasks import export
from aegl.figure_tasks import plot, report, report_of
from aegl.prediction_tasks import iter_predictions, predict
from aegl.progress import Progress
from aegl.trained import Overrides, open_trained, request_of

if TYPE_CHECKING:
    from aegl.data.source import DataSource
    from aegl.engine.callbacks import Callback
    from aegl.engine.scorer import Scorer
    from aegl.longtail.statistics import ClassStatistics

LOGGER = logging.getLogger("aegl")

__all__ = [
    "benchmark",
    "compare",
    "data_advise",
    "data_check",
    "data_coco_lt",
    "data_convert",
    "data_download",
    "data_segments",
    "data_split",
    "data_stats",
    "export",
    "iter_predictions",
    "open_source",
    "plot",
    "predict",
    "report",
    "train",
    "tune",
    "val",
]


def train(overrides: Overrides, progress: Progress, callbacks: tuple[Callback, ...] = ()) -> dict[str, Any]:
    """Train; see :func:`aegl.engine.build.train` for what comes back."""
    from aegl.engine import build, runs

    trained = build.train(load_config(overrides), progress, callbacks, asked=overrides)
    if not trained["metrics"]:  # of several processes the main one has the figures, and writes
        return trained
    run = Path(trained["run"])
    # The keys of a run that goes on lie in its folder; the request need not repeat them.
    return {**trained, **report_of(run, load_config({"cfg": str(run / runs.ARGS_FILE)}))}


def val(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Evaluate a model, or score the results file of `predictions=`.

    Returns:
        The object of :func:`aegl.metrics.summary_json`, ``run`` and the files in it: ``metrics``, ``per_class`` and
        ``pr_curves``; and ``weights`` where a model was evaluated.
    """
    request = request_of(overrides)
    if request.predictions:
        return _score_file(load_config(overrides), progress)
    from aegl.data.loader import eval_loader
    from aegl.engine.distributed import join_world
    from aegl.engine.splits import evaluation_set
    from aegl.engine.validator import require_same_classes, validate

    with join_world(request.device) as world:
        trained = open_trained(overrides, progress)
        config, meta = trained.config, trained.backend.meta
        source = open_source(config, progress)
        store = source.open(config.split)
        require_same_classes(meta, store)
        statistics = _training_statistics(source, config.split) if world.is_main else None
        scorer = _scorer(config, source, statistics, class_band=meta.class_band, band_names=meta.band_names)
        if world.is_main:
            _warn_of_limit_per_image(config, scorer.protocol)
        asked = config.model_copy(update={"weights": str(trained.weights)})
        folder = str(_new_run(asked, "val", keep_args=True)) if world.is_main else ""
        run = Path(world.broadcast_text(folder))
        sized = replace(meta, imgsz=config.imgsz, max_size=config.max_size)
        dataset = evaluation_set(store, sized, trained.backend.canvas)
        batches = eval_loader(dataset, 1, config.workers, rank=world.rank, world_size=world.size)
        summary = validate(
            trained.backend,
            batches,
            store,
            scorer,
            conf=meta.conf if config.conf is None else config.conf,
            max_det=config.max_det,
            folder=run,
            progress=progress,
            world=world,
        )
    report = report_of(run, config) if summary else {}
    return {**summary, "weights": str(trained.weights), **_files_of_scoring(run), **report}


def benchmark(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Measure a model in every engine; see :func:`aegl.benchmarking.benchmark.benchmark` for what comes back."""
    from aegl.benchmarking import benchmark as benchmarking

    return benchmarking.benchmark(overrides, progress, export=export, val=val)


def compare(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Train or collect several methods or recipes; see :func:`aegl.comparison.compare.compare` for what comes back."""
    from aegl.comparison import compare as comparison

    return comparison.compare(overrides, progress)


def tune(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Search hyper-parameters; see :func:`aegl.tuning.tune.tune` for what comes back."""
    from aegl.tuning import tune as tuning

    return tuning.tune(overrides, progress)


def _new_run(config: Config, verb: str, *, keep_args: bool = False) -> Path:
    from aegl.config import complete_parts, to_yaml
    from aegl.engine import runs

    run = runs.create_run(config.project, config.name, verb=verb, exist_ok=config.exist_ok)
    if keep_args:
        runs.write_text(run / runs.ARGS_FILE, to_yaml(complete_parts(config)))
    return run


def _training_statistics(source: DataSource, split: str) -> ClassStatistics | None:
    """For the table of classes; evaluating a model does not fail for want of them."""
    try:
        return source.training_statistics(split)
    except DataError as error:
        LOGGER.warning("figures per class go without training counts: %s", error)
        return None


def _scorer(
    config: Config, source: DataSource, statistics: ClassStatistics | None, *, class_band: Any, band_names: Any
) -> Scorer:
    from aegl.engine.scorer import Extras, Scorer
    from aegl.metrics import PROTOCOLS

    protocol = source.protocol if config.protocol == "auto" else config.protocol
    return Scorer(
        source.open(config.split),
        protocol=protocol,
        split=config.split,
        class_band=class_band,
        band_names=band_names,
        max_det=PROTOCOLS[protocol].limit_of_model(config.max_det),
        statistics=statistics,
        extras=Extras(config.boundary, config.scorer == "official", config.confusions),
    )


def _warn_of_limit_per_image(config: Config, protocol: str) -> None:
    from aegl.metrics import PROTOCOLS

    rules = PROTOCOLS[protocol]
    if rules.per == "class":
        LOGGER.warning(
            "protocol=%s counts %d detections per class and has no limit per image, but the model keeps max_det=%d per "
            "image: raise max_det and nms_candidates to lose nothing",
            protocol,
            rules.max_det,
            config.max_det,
        )


def _score_file(config: Config, progress: Progress) -> dict[str, Any]:
    from aegl.engine.detections import read_detections
    from aegl.engine.runs import check_free

    check_free(config.project, config.name, exist_ok=config.exist_ok)
    source = open_source(config, progress)
    class_band, statistics = source.class_band(config.split), source.training_statistics(config.split)
    scorer = _scorer(config, source, statistics, class_band=class_band, band_names=source.bands.names)
    table = read_detections(Path(str(config.predictions)), source.open(config.split), progress)
    run = _new_run(config, "val", keep_args=True)
    summary = scorer.score(table, folder=run, progress=progress)
    return {**summary, **_files_of_scoring(run), **report_of(run, config)}


def _files_of_scoring(run: Path) -> dict[str, str]:
    from aegl.engine import runs

    files = {"metrics": runs.METRICS_FILE, "per_class": runs.PER_CLASS_FILE, "pr_curves": runs.CURVES_FILE}
    return {"run": str(run), **{key: str(run / file) for key, file in files.items()}}
