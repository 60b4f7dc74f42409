"""`aegl benchmark`: every engine measured in a process of its own, and what cannot be measured said and not hidden."""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aegl.benchmarking import worker
from aegl.benchmarking.engines import Spec, example_images
from aegl.benchmarking.measure import Row, measure
from aegl.detector import Detector
from aegl.errors import ConfigError
from aegl.progress import SilentProgress

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")


def spec(**changes: Any) -> Spec:
    values: dict[str, Any] = {"engine": "onnx-cpu", "file": "x.onnx", "config": {}, "device": "cpu", "size": (64, 96)}
    return Spec(**{**values, "batch": 2, "threads": 1, **changes})


def row(**changes: Any) -> dict[str, Any]:
    figures = {"p50_ms": 12.34, "p95_ms": 20.0, "images_per_s": 81.0, "first_call_s": 0.5, "process_mb": 900.4}
    return asdict(Row(**{"engine": "pytorch", "device": "cpu", "batch": 1, **figures, **changes}))


@pytest.fixture(scope="module")
def result(aegl: Any, best: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """PyTorch and ONNX Runtime at two batch sizes, with AP and placement."""
    weights = shutil.copy(best, tmp_path_factory.mktemp("measured"))
    ended = aegl(
        "benchmark", f"weights={weights}", "engines=onnx-cpu,pytorch", "batches=1,3", "repeats=7", "ap=true",
        "placement=true", "device=cpu", "workers=0", "--json",
    )  # fmt: skip
    assert ended.exit_code == 0, ended.stderr
    content: dict[str, Any] = json.loads(ended.stdout)
    return content


def test_every_engine_is_measured_at_every_batch_size(result: dict[str, Any]) -> None:
    rows = result["rows"]
    assert [(row["batch"], row["engine"]) for row in rows] == [
        (1, "onnx-cpu"), (1, "pytorch"), (3, "onnx-cpu"), (3, "pytorch"),
    ]  # fmt: skip
    for row in rows:
        assert row["skipped"] is None
        assert len(row["seconds"]) == 7
        assert row["p50_ms"] == pytest.approx(1000 * np.median(row["seconds"]))
        assert row["p50_ms"] <= row["p95_ms"] <= 1000 * max(row["seconds"])
        assert row["images_per_s"] == pytest.approx(row["batch"] / np.mean(row["seconds"]))
        assert row["first_call_s"] > 0
        assert row["gpu_mb"] is None


def test_memory_is_that_of_each_engines_own_process(result: dict[str, Any]) -> None:
    """This process holds PyTorch; that of ONNX Runtime does not."""
    memory = {(row["engine"], row["batch"]): row["process_mb"] for row in result["rows"]}
    assert 20 < memory["onnx-cpu", 1] < 0.6 * memory["pytorch", 1]


def test_ap_is_that_of_val(result: dict[str, Any], aegl: Any, best: Path, tmp_path: Path) -> None:
    evaluated = json.loads(aegl("val", f"weights={best}", "workers=0", f"project={tmp_path}", "--json").stdout)
    assert result["ap"].keys() == {"pytorch", "onnx-cpu"}
    assert result["ap"]["pytorch"]["mask"] == evaluated["mask"]["AP"]
    assert result["ap"]["onnx-cpu"]["box"] == pytest.approx(evaluated["box"]["AP"], abs=1e-3)
    assert result["ap"]["pytorch"]["split"] == "val"


def test_placement_is_shown_when_asked_for(result: dict[str, Any]) -> None:
    assert result["placement"]["image"] == [1, 3, *result["size"]]
    assert "RoiAlign" in {operator["operator"] for operator in result["placement"]["operators"]}


def test_nothing_is_left_beside_the_weights(result: dict[str, Any]) -> None:
    weights = Path(result["weights"])
    assert list(weights.parent.iterdir()) == [weights]


@no_cuda
def test_an_engine_that_is_not_there_is_left_out_with_the_reason(aegl: Any, exported: Path) -> None:
    ended = aegl("benchmark", f"weights={exported}", "engines=onnx-cpu,onnx-cuda,pytorch", "batches=1", "repeats=1")
    assert ended.exit_code == 0, ended.stderr
    assert "onnx-cuda not measured: device=cuda: the CUDA provider did not come up" in ended.stdout
    assert "pytorch not measured: an ONNX file was given" in ended.stdout


@no_cuda
def test_nothing_measured_is_a_failure(aegl: Any, exported: Path) -> None:
    ended = aegl("benchmark", f"weights={exported}", "engines=onnx-cuda", "batches=1")
    assert ended.exit_code == 1
    assert "nothing could be measured: onnx-cuda: device=cuda: the CUDA provider did not come up" in ended.stderr


@no_cuda
@pytest.mark.parametrize("words", [("benchmark",), ("export", "format=triton", "output=repository")])
def test_strict_gpu_fails_without_a_gpu(
    aegl: Any, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = aegl(*words, f"weights={exported}", "strict_gpu=true")
    assert ended.exit_code == 1
    assert "aegl: error: strict_gpu=true: device=cuda: the CUDA provider did not come up" in ended.stderr
    assert not Path("repository").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("engines=pytorc",), "engines=pytorc: no such engine (did you mean pytorch?)"),
        (("batches=1,0",), "batches=[1, 0]: every batch size must be 1 or more"),
        (("repeats=0",), "repeats"),
    ],
)
def test_wrong_keys_are_refused(aegl: Any, exported: Path, refused: Any, words: tuple[str, ...], named: str) -> None:
    refused(aegl("benchmark", f"weights={exported}", *words), named)


def test_missing_weights_are_named(aegl: Any, refused: Any, tmp_path: Path) -> None:
    refused(aegl("benchmark", f"weights={tmp_path / 'none.pt'}"), tmp_path / "none.pt")
    refused(aegl("benchmark", f"weights={tmp_path / 'none.onnx'}"), tmp_path / "none.onnx")


def test_the_table_is_for_people(aegl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(), row(engine="onnx-cuda", device="cuda", gpu_mb=512.0), row(engine="compiled", skipped="no compiler")]
    ap = {"pytorch": {"box": 0.25, "mask": None}, "onnx-cuda": {"box": 0.249}}
    content = {"weights": "best.pt", "size": [800, 1344], "threads": 2, "repeats": 20, "rows": rows}
    found = {**content, "ap": ap, "placement": {"text": "placement on cuda"}}
    monkeypatch.setattr("aegl.tasks.benchmark", lambda overrides, progress: found)
    head, columns, *lines = aegl("benchmark", "weights=best.pt").stdout.splitlines()
    assert "800x1344" in head and "20 runs" in head
    assert columns.split()[:3] == ["engine", "device", "batch"]
    assert lines[0].split() == ["pytorch", "cpu", "1", "12.3", "20.0", "81.00", "0.5", "900", "-", "25.0", "-"]
    assert lines[1].split()[-3:] == ["512", "24.9", "-"]
    assert lines[2:] == ["compiled not measured: no compiler", "placement on cuda"]


def converse(*lines: str, **changes: Any) -> list[dict[str, Any]]:
    """What a worker answers."""
    answers = io.StringIO()
    worker.main(io.StringIO("\n".join([json.dumps(spec(**changes).to_dict()), *lines]) + "\n"), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_a_worker_warms_up_and_times_as_often_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(worker, "make_engine", lambda spec: lambda images: calls.append(images.shape))
    ready, first, second = converse("2", "3")
    assert ready["ready"] and ready["process_mb"] > 10 and ready["gpu_mb"] is None
    assert [len(answer["seconds"]) for answer in (first, second)] == [2, 3]
    assert calls == [(2, 3, 64, 96)] * (worker.WARM_UP_RUNS + 5)


def test_a_worker_gives_its_reason_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(spec: Spec) -> Any:
        raise NotImplementedError("\n  no kernel for this\nand a page of advice")

    monkeypatch.setattr(worker, "make_engine", fails)
    assert converse("2") == [{"error": "NotImplementedError: no kernel for this"}]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -9 $$", "its process was ended by signal 9, most likely for want of memory"),
        ("exit 3", "its process ended with exit code 3"),
        ("echo first >&2; echo ImportError: no such thing >&2; exit 1", "ImportError: no such thing"),
    ],
)
def test_a_process_that_dies_is_a_row_without_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, reason: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    (row,) = measure([spec()], repeats=3, progress=SilentProgress())
    assert (row.skipped, row.p50_ms, row.seconds) == (reason, None, ())


def test_images_of_a_batch_differ_and_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = example_images(spec(batch=3, size=(96, 64)))
    assert (images.shape, images.dtype) == ((3, 3, 96, 64), np.uint8)
    assert not np.array_equal(images[0], images[1])
    assert np.array_equal(images, example_images(spec(batch=3, size=(96, 64))))


def test_an_untrained_detector_cannot_be_measured() -> None:
    with pytest.raises(ConfigError, match="not trained"):
        Detector("mini").benchmark()


def test_a_detector_measures_itself(exported: Path) -> None:
    found = Detector(exported, device="cpu").benchmark(engines=["onnx-cpu"], batches=[2], repeats=1)
    assert [(row["engine"], row["batch"], row["skipped"]) for row in found["rows"]] == [("onnx-cpu", 2, None)]
