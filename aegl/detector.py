"""The facade: one object that trains, evaluates, predicts and exports, with the command line's own keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegl import tasks
from aegl.config.verbs import refuse_unread
from aegl.errors import ConfigError
from aegl.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from aegl.engine.callbacks import Callback
    from aegl.engine.predictor import Prediction

WEIGHT_SUFFIXES = (".pt", ".onnx")


class Detector:
    """A detector to be trained, or a trained one.

    Args:
        model: a model name (``"r50"``, ``"timm:resnet26"``), or the path of a trained model (``.pt`` or ``.onnx``).
        progress: told how long work takes; silent by default.
        **keys: any configuration keys, used by every later call that reads them; nested keys as ``{"loss.mu": 0.5}`` or
            dictionaries.

    Example::

        detector = Detector("mini")
        detector.train(data="shapes_lt", method="fbs_aegl")
        print(detector.val()["mask"]["APr"])
        detector.export()
    """

    def __init__(self, model: str | Path = "r50", *, progress: Progress | None = None, **keys: Any) -> None:
        self._progress = progress or SilentProgress()
        self._keys = dict(keys)
        self.weights: Path | None = None
        if str(model).endswith(WEIGHT_SUFFIXES):
            self.weights = Path(model)
        else:
            self._keys["model"] = str(model)

    def train(self, *, callbacks: Sequence[Callback | str] = (), **keys: Any) -> dict[str, Any]:
        """Train, evaluate, and keep the best weights for later calls. Returns what ``aegl train --json`` prints.

        ``callbacks`` are told of what happens: objects, or texts ``file.py:Class`` as the key holds them.
        """
        named = [each for each in callbacks if isinstance(each, str)]
        objects = tuple(each for each in callbacks if not isinstance(each, str))
        overrides = self._overrides("train", {"callbacks": named, **keys} if named else keys)
        result = tasks.train(overrides, self._progress, objects)
        self.weights = Path(result["best"])
        return result

    def val(self, **keys: Any) -> dict[str, Any]:
        """Evaluate; returns protocol, split, bands, and box and mask AP in [0, 1]."""
        return tasks.val(self._trained("val", keys), self._progress)

    def predict(self, source: str | Path, **keys: Any) -> Iterator[Prediction]:
        """Detect in an image, a folder or a glob; yields one :class:`Prediction` per image as it is ready."""
        return tasks.iter_predictions(self._trained("predict", {"source": str(source), **keys}), self._progress)

    def export(self, **keys: Any) -> dict[str, Any]:
        """Write the ONNX file beside the weights, with its parity report."""
        return tasks.export(self._trained("export", keys), self._progress)

    def benchmark(self, **keys: Any) -> dict[str, Any]:
        """Measure time, memory and, with ``ap=True``, AP in PyTorch and in ONNX Runtime; returns the table's rows."""
        return tasks.benchmark(self._trained("benchmark", keys), self._progress)

    def tune(self, space: Mapping[str, Any] | str | Path, **keys: Any) -> dict[str, Any]:
        """Search hyper-parameters: ``{"lr": "0.001..0.1:log", "optimizer": ["sgd", "adamw"]}``, or a YAML file."""
        return tasks.tune(self._overrides("tune", {**keys, "space": space}), self._progress)

    def _overrides(self, verb: str, keys: dict[str, Any]) -> dict[str, Any]:
        refuse_unread(verb, keys)  # those of the constructor are for all verbs
        own = {"weights": str(self.weights)} if self.weights else {}
        return {**own, **self._keys, **keys}

    def _trained(self, verb: str, keys: dict[str, Any]) -> dict[str, Any]:
        """Overrides for a trained model, whose own configuration names model and method already."""
        overrides = self._overrides(verb, keys)
        if overrides.get("predictions"):
            return overrides
        if not overrides.get("weights"):
            raise ConfigError(
                f"model={overrides.get('model')}: this detector is not trained; call train() first, or make it from a "
                ".pt or .onnx file"
            )
        overrides.pop("model", None)
        return overrides
