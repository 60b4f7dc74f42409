"""`aegl predict`, and predictions one by one for Python."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aegl.config import Config
from aegl.errors import ConfigError
from aegl.progress import Progress
from aegl.trained import Overrides, Trained, open_trained, request_of

if TYPE_CHECKING:
    from aegl.engine.prediction import Prediction
    from aegl.engine.slicing import Slicing
    from aegl.engine.sources import Source

PREDICT_CONF = 0.3
"""Score threshold of `predict` when none is given: fit to look at, unlike the 1e-4 that AP needs."""


def predict(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Detect in what `source=` names, and write drawn images or a video, ``predictions.json``, and what else is asked.

    Returns:
        ``{"run": folder, "images": [what was found in each]}``. A video or camera may be stopped by Ctrl-C: what was
        found until then is written.
    """
    from aegl.engine import runs
    from aegl.engine.prediction_files import Kept, PredictionFiles

    source = _source(overrides)
    trained = open_trained(overrides, progress, conf=PREDICT_CONF)
    config = trained.config
    runs.check_free(config.project, config.name, exist_ok=config.exist_ok)
    predictions = _predictions(trained, source, progress)
    first = next(predictions)
    run = runs.create_run(config.project, config.name, verb="predict", exist_ok=config.exist_ok)
    kept = Kept(config.save, config.save_txt, config.save_json, config.save_crops)
    with PredictionFiles(run, kept, source.video) as files:
        for prediction in itertools.chain([first], predictions):
            files.add(prediction)
    return {"run": str(run), "images": files.found}


def iter_predictions(overrides: Overrides, progress: Progress) -> Iterator[Prediction]:
    """Detect in what `source=` names, one image at a time."""
    source = _source(overrides)
    yield from _predictions(open_trained(overrides, progress, conf=PREDICT_CONF), source, progress)


def _source(overrides: Overrides) -> Source:
    from aegl.engine.sources import open_source

    source = request_of(overrides).source
    if source is None:
        raise ConfigError("source: not given; name an image, a folder, a pattern in quotes, an address or a video")
    return open_source(source)


def _predictions(trained: Trained, source: Source, progress: Progress) -> Iterator[Prediction]:
    from aegl.engine.predictor import predict as run_predictor

    config = trained.config
    progress.start("predict", source.count or 0, "image")
    for prediction in run_predictor(
        trained.backend,
        source.frames(),
        conf=trained.backend.meta.conf if config.conf is None else config.conf,
        max_det=config.max_det,
        imgsz=config.imgsz,
        max_size=config.max_size,
        slicing=_slicing(config),
    ):
        progress.update(1)
        yield prediction
    progress.finish()


def _slicing(config: Config) -> Slicing | None:
    from aegl.engine.slicing import Slicing

    return Slicing(config.slice, config.slice_overlap) if config.slice else None
