"""The facade: the command line's verbs and keys, as one Python object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegl import Detector
from aegl.config import load_config
from aegl.data.source import DataSource
from aegl.errors import AeglError, CheckpointError, ConfigError, DataError
from aegl.tasks import open_source

SHAPES = {"classes": 6, "max_instances": 12, "imbalance": 6, "val_per_class": 2}
TINY: dict[str, Any] = {"iterations": 6, "batch": 4, "warmup_iterations": 2, "workers": 0}


@pytest.fixture(scope="module")
def source() -> DataSource:
    return open_source(load_config({"data": "shapes_lt", "shapes": SHAPES}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, dict[str, Any]]:
    detector = Detector("mini", project=tmp_path_factory.mktemp("runs"), shapes=SHAPES, workers=0, device="cpu")
    return detector, detector.train(data="shapes_lt", **TINY)


def test_train_returns_what_the_run_is(trained: tuple[Detector, dict[str, Any]]) -> None:
    detector, result = trained
    assert result.keys() >= {"run", "best", "last", "iterations", "metrics", "fitness"}
    assert detector.weights == Path(result["best"])
    assert result["metrics"]["mask"].keys() >= {"AP", "APr", "APc", "APf"}
    args = load_config({"cfg": Path(result["run"]) / "args.yaml"})
    assert (args.model, args.shapes.classes, args.iterations) == ("mini", 6, 6)


def test_val_evaluates_what_was_trained(trained: tuple[Detector, dict[str, Any]]) -> None:
    detector, result = trained
    summary = detector.val()
    assert (summary["box"], summary["mask"]) == (result["metrics"]["box"], result["metrics"]["mask"])
    assert summary["weights"] == result["best"]
    assert Path(summary["run"]).parent == Path(result["run"]).parent


def test_predict_yields_one_image_at_a_time(trained: tuple[Detector, dict[str, Any]], source: DataSource) -> None:
    detector, _ = trained
    folder = source.open("val").image_path(0).parent
    predictions = detector.predict(folder, conf=0.001)
    first = next(predictions)
    assert first.path.parent == folder
    assert len(first) == len(first.names) == len(first.bands) > 0
    assert set(first.bands) <= {"r", "c", "f"}
    assert first.mask(0).shape == first.orig_size
    assert first.mask(0).dtype == np.bool_
    assert first.draw().size[0] > 0
    assert len(list(predictions)) == len(list(folder.glob("*.jpg"))) - 1
    assert all(score >= 0.3 for prediction in detector.predict(folder) for score in prediction.scores)


def test_a_file_of_weights_is_a_detector(trained: tuple[Detector, dict[str, Any]], tmp_path: Path) -> None:
    _, result = trained
    for path in (result["best"], Path(result["best"])):
        summary = Detector(path, project=tmp_path, workers=0, device="cpu").val()
        assert summary["mask"] == result["metrics"]["mask"]


@pytest.mark.slow
def test_export_gives_a_file_that_is_a_detector(trained: tuple[Detector, dict[str, Any]], tmp_path: Path) -> None:
    detector, result = trained
    exported = detector.export(parity=False)
    assert Path(exported["file"]) == Path(result["best"]).with_suffix(".onnx")
    summary = Detector(exported["file"], project=tmp_path, workers=0, device="cpu").val()
    for kind in ("box", "mask"):
        figures = [value for value in summary[kind].values() if value is not None]
        assert figures == pytest.approx([v for v in result["metrics"][kind].values() if v is not None], abs=1e-3)


def test_training_goes_on_from_the_weights_it_has(trained: tuple[Detector, dict[str, Any]], tmp_path: Path) -> None:
    _, result = trained
    detector = Detector(result["best"], project=tmp_path)
    again = detector.train(model="mini", data="shapes_lt", shapes=SHAPES, **{**TINY, "iterations": 1})
    assert f"weights: {result['best']}" in (Path(again["run"]) / "args.yaml").read_text().splitlines()
    assert detector.weights == Path(again["best"])


def test_a_results_file_needs_no_weights(source: DataSource, tmp_path: Path) -> None:
    store = source.open("val")
    record = {"image_id": int(store.image_ids[0]), "category_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4]}
    (tmp_path / "results.json").write_text(json.dumps([record]))
    summary = Detector(project=tmp_path, data="shapes_lt", shapes=SHAPES).val(predictions=tmp_path / "results.json")
    assert (summary["box"]["AP"], summary["mask"]) == (0, None)


def test_it_shows_progress_only_to_who_asks(
    trained: tuple[Detector, dict[str, Any]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Noted:
        def __init__(self) -> None:
            self.begun: list[str] = []

        def start(self, name: str, total: int | None, unit: str) -> None:
            self.begun.append(name)

        def update(self, n: int = 1, **fields: float | str) -> None: ...
        def message(self, text: str) -> None: ...
        def finish(self) -> None: ...

    _, result = trained
    progress = Noted()
    Detector(result["best"], project=tmp_path, workers=0, device="cpu", progress=progress).val()
    Detector(result["best"], project=tmp_path, workers=0, device="cpu").val()
    assert progress.begun == ["val", "score bbox", "score segm"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("verb", ["val", "export", "predict"])
def test_an_untrained_detector_says_that_it_is(verb: str) -> None:
    """It must not take the newest run's weights, as the command line does: they may be of another model."""
    detector = Detector("mini")
    with pytest.raises(ConfigError, match="not trained; call train"):
        detector.predict("x.jpg") if verb == "predict" else getattr(detector, verb)()


def test_mistakes_are_errors_of_aegl(trained: tuple[Detector, dict[str, Any]], tmp_path: Path) -> None:
    detector, _ = trained
    with pytest.raises(ConfigError, match="modle: unknown key"):
        Detector("mini").train(modle="r50", data="shapes_lt")
    with pytest.raises(ConfigError, match="conf=2: must be"):
        detector.val(conf=2)
    with pytest.raises(ConfigError, match="batch=8: is no key of aegl val, but of train, compare, tune;"):
        detector.val(batch=8)
    with pytest.raises(ConfigError, match=r"loss\.mue: unknown option .* did you mean mu"):
        Detector("mini").train(data="shapes_lt", loss={"mue": 1})
    with pytest.raises(CheckpointError, match=r"missing\.pt: no such file"):
        Detector(tmp_path / "missing.pt").val()
    with pytest.raises(AeglError, match=r"missing\.onnx: no such"):
        Detector(tmp_path / "missing.onnx").val()
    with pytest.raises(DataError, match=r"source=.*nowhere"):
        next(detector.predict(tmp_path / "nowhere"))
