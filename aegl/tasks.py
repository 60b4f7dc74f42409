"""One function per verb: what the user typed in, a plain dictionary out.

The command line and :class:`aegl.Detector` call these. Every function takes ``overrides`` (dotted keys to values) and a
:class:`aegl.progress.Progress`. Where a trained model is involved, the configuration it was trained with lies below the
overrides: ``aegl val weights=best.pt`` evaluates on the model's own data at its own size unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegl.config import Config, load_config
from aegl.data.bands import bands_without_training_set, class_statistics
from aegl.data.source import DataSource, resolve_data
from aegl.errors import ConfigError
from aegl.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    from aegl.engine.backend import Backend
    from aegl.engine.predictor import Prediction

Overrides = Mapping[str, Any]

PREDICT_CONF = 0.3
"""Score threshold of `predict` when none is given: fit to look at, unlike the 1e-4 that AP needs."""
_OF_ONE_RUN = (
    "project", "name", "exist_ok", "resume", "weights", "device", "workers", "split", "predictions", "source", "save",
    "format", "opset", "dynamic", "parity",
)  # fmt: skip
"""Keys of a training run that say nothing about the model it made."""


@dataclass(frozen=True)
class Trained:
    """A trained model, ready to run, and the configuration that holds for it."""

    weights: Path
    backend: Backend
    config: Config


def train(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Train; see :func:`aegl.engine.build.train` for what comes back."""
    from aegl.engine import build

    return build.train(load_config(overrides), progress)


def val(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Evaluate a model, or score the results file of `predictions=`.

    Returns:
        ``{"protocol", "split", "bands", "box": {...}, "mask": {...} or None, "run"}``, figures in [0, 1] or None.
    """
    if overrides.get("predictions"):
        return _score_file(load_config(overrides), progress)
    from aegl.data.loader import eval_loader
    from aegl.engine import runs
    from aegl.engine.distributed import join_world
    from aegl.engine.splits import evaluation_set
    from aegl.engine.validator import validate

    with join_world(str(overrides.get("device", "auto"))) as world:
        trained = open_trained(overrides, progress)
        config, meta = trained.config, trained.backend.meta
        source = open_source(config)
        store = source.open(config.split)
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
            conf=meta.conf,
            max_det=meta.max_det,
            folder=run,
            progress=progress,
            world=world,
        )
    return {**summary, "weights": str(trained.weights), "run": str(run), "metrics": str(run / runs.METRICS_FILE)}


def predict(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Detect in the images of `source=`, write drawn images and ``predictions.json``, and return what was found."""
    import json

    from aegl.engine import runs
    from aegl.engine.runs import write_text

    if not overrides.get("source"):
        raise ConfigError("source: not given; name an image, a folder, or a pattern in quotes")
    found: list[dict[str, Any]] = []
    config = load_config({k: v for k, v in overrides.items() if k in ("project", "name", "exist_ok", "save")})
    predictions = iter_predictions(overrides, progress)
    first = next(predictions)
    run = _new_run(config, "predict")
    for prediction in _chain(first, predictions):
        if config.save:
            _write_image(prediction, run)
        found.append(prediction.to_dict())
    write_text(run / runs.PREDICTIONS_FILE, json.dumps(found) + "\n")
    return {"run": str(run), "images": found}


def iter_predictions(overrides: Overrides, progress: Progress) -> Iterator[Prediction]:
    """Detect in the images of `source=`, one at a time."""
    from aegl.engine.predictor import predict as run_predictor
    from aegl.engine.sources import find_images

    paths = find_images(str(overrides["source"]))
    trained = open_trained({"conf": PREDICT_CONF, **overrides}, progress)
    config = trained.config
    progress.start("predict", len(paths), "image")
    for prediction in run_predictor(
        trained.backend,
        paths,
        conf=PREDICT_CONF if config.conf is None else config.conf,
        max_det=config.max_det,
        imgsz=config.imgsz,
        max_size=config.max_size,
    ):
        progress.update(1)
        yield prediction
    progress.finish()


def export(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Write the model as ONNX beside its weights, prove it, and return where everything lies."""
    from aegl.engine.checkpoint import load_checkpoint
    from aegl.engine.restore import rebuild_model
    from aegl.export.pipeline import export_and_prove

    weights = find_weights(overrides, progress)
    if weights.suffix == ".onnx":
        raise ConfigError(f"weights={weights}: is an ONNX file already; give the .pt it was made from")
    checkpoint = load_checkpoint(weights)
    config = load_config(overrides, base=_of_the_model(checkpoint.config))
    model, meta = rebuild_model(
        checkpoint, conf=config.conf, iou=config.iou, max_det=config.max_det, nms_candidates=config.nms_candidates
    )
    return export_and_prove(
        model,
        replace(meta, imgsz=config.imgsz, max_size=config.max_size),
        weights.with_suffix(".onnx"),
        config=_of_the_model(config.model_dump(mode="json")),
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


def find_weights(overrides: Overrides, progress: Progress) -> Path:
    """`weights=`, or the newest run's ``best.pt``; says which in the latter case."""
    from aegl.engine.runs import newest_weights

    given = overrides.get("weights")
    if given:
        return Path(str(given))
    weights = newest_weights(str(overrides.get("project", Config().project)))
    progress.message(f"weights={weights} (the newest run's)")
    return weights


def open_trained(overrides: Overrides, progress: Progress) -> Trained:
    """Open a ``.pt`` or ``.onnx`` file with the overrides laid over its own configuration.

    Raises:
        CheckpointError, ExportError: if the file is missing or none of aegl's.
        ConfigError: for overrides that do not hold for it.
    """
    weights = find_weights(overrides, progress)
    given = {key: value for key, value in overrides.items() if key != "weights"}
    device = str(overrides.get("device", "auto"))
    if weights.suffix == ".onnx":
        from aegl.export.backend import OnnxBackend

        onnx = OnnxBackend(weights, device=device)
        config = load_config(given, base=onnx.config)
        onnx.require(iou=config.iou, max_det=config.max_det, conf=config.conf)
        return Trained(weights, onnx, config)
    from aegl.engine.backend import TorchBackend
    from aegl.engine.checkpoint import load_checkpoint
    from aegl.engine.distributed import resolve_device
    from aegl.engine.restore import rebuild_model

    checkpoint = load_checkpoint(weights)
    config = load_config(given, base=_of_the_model(checkpoint.config))
    model, meta = rebuild_model(
        checkpoint, conf=config.conf, iou=config.iou, max_det=config.max_det, nms_candidates=config.nms_candidates
    )
    return Trained(weights, TorchBackend(model, meta, resolve_device(device)), config)


def _of_the_model(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _OF_ONE_RUN}


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
    source = open_source(config)
    scorer = _scorer(config, source, class_band=_bands_of(config, source), band_names=source.bands.names)
    run = _new_run(config, "val")
    summary = scorer.score_file(str(config.predictions), folder=run, progress=progress)
    return {**summary, "run": str(run)}


def _bands_of(config: Config, source: DataSource) -> np.ndarray:
    """Bands by the training split where there is one of its own, else as far as the evaluated file tells."""
    train_file = source.files.get("train")
    if train_file is not None and train_file != source.files.get(config.split) and train_file.is_file():
        return class_statistics(source.open("train"), source.bands).class_band
    return bands_without_training_set(source.open(config.split), source.bands)


def _chain(first: Prediction, rest: Iterator[Prediction]) -> Iterator[Prediction]:
    yield first
    yield from rest


def _write_image(prediction: Prediction, run: Path) -> None:
    from aegl.errors import RunError

    path = run / f"{prediction.path.stem}.jpg"
    try:
        prediction.draw().save(path, quality=92)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error
