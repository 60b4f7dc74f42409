"""One function per verb: what the user typed in, a plain dictionary out.

The command line and :class:`aegl.Detector` call these. Every function takes ``overrides`` (dotted keys to values) and a
:class:`aegl.progress.Progress`. Where a trained model is involved, the configuration it was trained with lies below the
overrides: ``aegl val weights=best.pt`` evaluates on the model's own data at its own size unless told otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegl.config import Config, load_config
from aegl.data.source import DataSource, resolve_data
from aegl.errors import ConfigError
from aegl.progress import Progress
from aegl.trained import Overrides, Trained, find_weights, of_the_model, open_trained, request_of

if TYPE_CHECKING:
    from aegl.engine.predictor import Prediction

PREDICT_CONF = 0.3
"""Score threshold of `predict` when none is given: fit to look at, unlike the 1e-4 that AP needs."""


def train(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Train; see :func:`aegl.engine.build.train` for what comes back."""
    from aegl.engine import build, resume

    config = load_config(overrides)
    if config.resume:
        resume.refuse_changes(resume.run_to_resume(config), overrides)
    return build.train(config, progress)


def val(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Evaluate a model, or score the results file of `predictions=`.

    Returns:
        ``{"protocol", "split", "bands", "box": {...}, "mask": {...} or None, "run"}``, figures in [0, 1] or None.
    """
    request = request_of(overrides)
    if request.predictions:
        return _score_file(load_config(overrides), progress)
    from aegl.data.loader import eval_loader
    from aegl.engine import runs
    from aegl.engine.distributed import join_world
    from aegl.engine.splits import evaluation_set
    from aegl.engine.validator import require_same_classes, validate

    with join_world(request.device) as world:
        trained = open_trained(overrides, progress)
        config, meta = trained.config, trained.backend.meta
        source = open_source(config)
        store = source.open(config.split)
        require_same_classes(meta, store)
        scorer = _scorer(config, source, class_band=meta.class_band, band_names=meta.band_names)
        folder = str(_new_run(config, "val")) if world.is_main else ""
        run = Path(world.broadcast_text(folder))
        dataset = evaluation_set(store, replace(meta, imgsz=config.imgsz, max_size=config.max_size))
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
    return {**summary, "weights": str(trained.weights), "run": str(run), "metrics": str(run / runs.METRICS_FILE)}


def predict(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Detect in the images of `source=`, write drawn images and ``predictions.json``, and return what was found."""
    import json

    from aegl.engine import runs

    paths = _images(overrides)
    trained = open_trained(overrides, progress, conf=PREDICT_CONF)
    runs.check_free(trained.config.project, trained.config.name, exist_ok=trained.config.exist_ok)
    predictions = _predictions(trained, paths, progress)
    first = next(predictions)
    run = _new_run(trained.config, "predict")
    names = _file_names()
    found: list[dict[str, Any]] = []
    for prediction in itertools.chain([first], predictions):
        if trained.config.save:
            _write_image(prediction, run / names(prediction.path))
        found.append(prediction.to_dict())
    runs.write_text(run / runs.PREDICTIONS_FILE, json.dumps(found) + "\n")
    return {"run": str(run), "images": found}


def iter_predictions(overrides: Overrides, progress: Progress) -> Iterator[Prediction]:
    """Detect in the images of `source=`, one at a time."""
    paths = _images(overrides)
    yield from _predictions(open_trained(overrides, progress, conf=PREDICT_CONF), paths, progress)


def export(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Write the model as ONNX beside its weights, prove it, and return where everything lies."""
    from aegl.engine.checkpoint import load_checkpoint
    from aegl.engine.restore import rebuild_model
    from aegl.export.pipeline import export_and_prove

    weights = find_weights(request_of(overrides), progress)
    if weights.suffix == ".onnx":
        raise ConfigError(f"weights={weights}: is an ONNX file already; give the .pt it was made from")
    checkpoint = load_checkpoint(weights)
    config = load_config(overrides, base=of_the_model(checkpoint.config))
    model, meta = rebuild_model(
        checkpoint, conf=config.conf, iou=config.iou, max_det=config.max_det, nms_candidates=config.nms_candidates
    )
    return export_and_prove(
        model,
        replace(meta, imgsz=config.imgsz, max_size=config.max_size),
        weights.with_suffix(".onnx"),
        config=of_the_model(config.model_dump(mode="json")),
        opset=config.opset,
        dynamic=config.dynamic,
        parity=config.parity,
        progress=progress,
    )


def data_check(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Look for everything that is wrong with a data set's files."""
    from aegl.data.check import check_source

    return check_source(open_source(load_config(overrides)), progress=progress)


def data_stats(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Counts of a data set, by split and frequency band."""
    from aegl.data.summary import summarize_source

    return summarize_source(open_source(load_config(overrides)))


def data_download(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Fetch a shipped data set from its official addresses."""
    from aegl.data.download import download
    from aegl.data.source import describe_shipped

    config = load_config(overrides)
    if config.data is None:
        raise ConfigError("data: not given; name a shipped data set, e.g. data=lvis_v1")
    files = download(config.data, describe_shipped(config.data), Path(config.data_dir), progress)
    return {"data": config.data, "files": [str(file) for file in files]}


def open_source(config: Config) -> DataSource:
    """The data set that ``config.data`` names. Raises :class:`ConfigError` when it names none."""
    if config.data is None:
        raise ConfigError("data: not given; name a data set (data=shapes_lt, data=lvis_v1) or your own file or folder")
    return resolve_data(config.data, data_dir=Path(config.data_dir), shapes=config.shapes, bands=config.bands)


def _images(overrides: Overrides) -> list[Path]:
    from aegl.engine.sources import find_images

    source = request_of(overrides).source
    if source is None:
        raise ConfigError("source: not given; name an image, a folder, or a pattern in quotes")
    return find_images(source)


def _predictions(trained: Trained, paths: list[Path], progress: Progress) -> Iterator[Prediction]:
    from aegl.engine.predictor import predict as run_predictor

    config = trained.config
    progress.start("predict", len(paths), "image")
    for prediction in run_predictor(
        trained.backend,
        paths,
        conf=trained.backend.meta.conf if config.conf is None else config.conf,
        max_det=config.max_det,
        imgsz=config.imgsz,
        max_size=config.max_size,
    ):
        progress.update(1)
        yield prediction
    progress.finish()


def _new_run(config: Config, verb: str) -> Path:
    from aegl.engine.runs import create_run

    return create_run(config.project, config.name, verb=verb, exist_ok=config.exist_ok)


def _scorer(config: Config, source: DataSource, *, class_band: Any, band_names: Any) -> Any:
    from aegl.engine.scorer import Scorer

    protocol = source.protocol if config.protocol == "auto" else config.protocol
    return Scorer(
        source.open(config.split),
        protocol=protocol,
        split=config.split,
        class_band=class_band,
        band_names=band_names,
        max_det=config.max_det if protocol == "lvis" else None,
    )


def _score_file(config: Config, progress: Progress) -> dict[str, Any]:
    from aegl.engine.runs import check_free
    from aegl.metrics import DetectionTable

    check_free(config.project, config.name, exist_ok=config.exist_ok)
    source = open_source(config)
    scorer = _scorer(config, source, class_band=source.class_band(config.split), band_names=source.bands.names)
    table = DetectionTable.from_results_json(str(config.predictions), source.open(config.split))
    run = _new_run(config, "val")
    return {**scorer.score(table, folder=run, progress=progress), "run": str(run)}


def _file_names() -> Callable[[Path], str]:
    """Names of drawn images: the image's own, numbered where images of several folders or kinds share one."""
    taken: set[str] = set()

    def name_for(path: Path) -> str:
        numbered = (f"{path.stem}-{number}.jpg" for number in itertools.count(2))
        name = next(name for name in itertools.chain([f"{path.stem}.jpg"], numbered) if name not in taken)
        taken.add(name)
        return name

    return name_for


def _write_image(prediction: Prediction, path: Path) -> None:
    from aegl.errors import RunError

    try:
        prediction.draw().save(path, quality=92)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error
