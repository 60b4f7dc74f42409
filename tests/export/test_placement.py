"""Where operators run: what the profiler saw, told without loss, and the rule of what belongs on the GPU."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from aegl.config import load_config
from aegl.errors import ExportError, RunError
from aegl.export import placement
from aegl.export.deliver import deliver
from aegl.export.placement import (
    OperatorPlacement,
    Placement,
    add_to_report,
    example_images,
    measure_placement,
    read_profile,
    require_gpu,
)
from aegl.progress import SilentProgress

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def node(name: str, provider: str, ts: int, microseconds: int) -> dict[str, Any]:
    args = {"op_name": name, "provider": provider}
    return {"cat": "Node", "name": f"/x/{name}_kernel_time", "ts": ts, "dur": microseconds, "args": args}


def placed(*rows: tuple[str, str, float]) -> Placement:
    made = tuple(OperatorPlacement(operator, provider, 1, ms) for operator, provider, ms in rows)
    return Placement("cuda", (1, 3, 64, 64), made, 0, sum(row.milliseconds for row in made))


@pytest.fixture(scope="module")
def measured(plain: Any) -> Placement:
    return measure_placement(plain.path, (64, 64), device="cpu", batch=2)


def test_every_heavy_node_of_the_graph_is_counted(plain: Any, measured: Placement) -> None:
    graph = onnx.load(str(plain.path)).graph
    counted = {row.operator: row.count for row in measured.rows}
    for operator in ("RoiAlign", "NonMaxSuppression", "MatMul", "TopK"):
        assert counted[operator] == sum(node.op_type == operator for node in graph.node) > 0
    assert counted["Conv"] == sum(node.op_type == "Conv" for node in graph.node)


def test_on_the_cpu_everything_is_on_the_cpu_and_nothing_is_copied(measured: Placement) -> None:
    assert measured.device == "cpu"
    assert {row.provider for row in measured.rows} == {CPU}
    assert measured.copies == 0
    assert measured.image == (2, 3, 64, 64)


def test_rows_fall_by_time_and_add_up(measured: Placement) -> None:
    times = [row.milliseconds for row in measured.rows]
    assert times == sorted(times, reverse=True)
    assert measured.milliseconds == pytest.approx(sum(times))
    assert measured.milliseconds > 0


def test_the_table_has_a_line_for_each_row(measured: Placement) -> None:
    head, columns, *lines = measured.text().splitlines()
    assert "[2, 3, 64, 64]" in head and "0 copies" in head
    assert columns.split() == ["operator", "provider", "nodes", "ms"]
    assert [line.split()[0] for line in lines] == [row.operator for row in measured.rows]


def test_only_the_last_run_of_a_profile_counts() -> None:
    events = [
        {"cat": "Session", "name": "model_run", "ts": 0, "dur": 50},
        node("Conv", CUDA, 10, 9000),
        {"cat": "Session", "name": "model_run", "ts": 100, "dur": 50},
        node("Conv", CUDA, 110, 2000),
        node("Conv", CUDA, 112, 1000),
        node("Conv", CPU, 113, 500),
        node("MemcpyToHost", CUDA, 114, 100),
        node("MemcpyFromHost", CUDA, 115, 100),
        {"cat": "Node", "name": "Conv_fence_before", "ts": 110, "dur": 7, "args": {"op_name": "Conv"}},
    ]
    found = read_profile(events, "cuda", (1, 3, 64, 64))
    assert found.rows[:2] == (OperatorPlacement("Conv", CUDA, 2, 3.0), OperatorPlacement("Conv", CPU, 1, 0.5))
    assert found.copies == 2
    assert found.milliseconds == pytest.approx(3.7)


@pytest.mark.parametrize("operator", ["Conv", "MatMul", "Gemm", "FusedGemm", "RoiAlign", "NonMaxSuppression"])
def test_a_heavy_operator_off_the_gpu_is_named_however_short(operator: str) -> None:
    found = placed(("Conv", CUDA, 100.0), (operator, CPU, 0.001))
    assert [row.operator for row in found.heavy_off_gpu()] == [operator]


def test_another_operator_is_heavy_only_where_it_takes_its_share() -> None:
    assert placed(("Conv", CUDA, 100.0), ("Shape", CPU, 1.0)).heavy_off_gpu() == []
    assert [row.operator for row in placed(("Conv", CUDA, 90.0), ("Scan", CPU, 10.0)).heavy_off_gpu()] == ["Scan"]


def test_copies_and_what_is_on_the_gpu_are_never_heavy() -> None:
    assert placed(("RoiAlign", CUDA, 50.0), ("MemcpyToHost", CPU, 50.0)).heavy_off_gpu() == []


def test_strict_gpu_names_what_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    found = placed(("Conv", CUDA, 9.0), ("RoiAlign", CPU, 1.5))
    monkeypatch.setattr(placement, "measure_placement", lambda *args, **keys: found)
    with pytest.raises(RunError, match=r"strict_gpu=true: .*RoiAlign \(1 on CPU, 1.5 ms\)") as caught:
        require_gpu(Path("best.onnx"), (64, 64))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(("device", "opened"), [("auto", "cuda"), ("cuda:1", "cuda:1")])
def test_strict_gpu_asks_for_cuda_and_gives_the_placement(
    monkeypatch: pytest.MonkeyPatch, device: str, opened: str
) -> None:
    found = placed(("Conv", CUDA, 9.0), ("Shape", CPU, 0.01))
    asked = []

    def measure(path: Path, size: tuple[int, int], *, device: str) -> Placement:
        asked.append(device)
        return found

    monkeypatch.setattr(placement, "measure_placement", measure)
    assert require_gpu(Path("best.onnx"), (64, 64), device=device) is found
    assert asked == [opened]


def test_strict_gpu_fails_where_cuda_does_not_come_up(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(RunError, match=r"strict_gpu=true: .*no CUDA provider; install onnxruntime-gpu") as caught:
        require_gpu(plain.path, (64, 64))
    assert caught.value.exit_code == 1


def test_strict_gpu_on_the_cpu_is_refused(plain: Any) -> None:
    with pytest.raises(ExportError, match="device=cpu: contradict"):
        require_gpu(plain.path, (64, 64), device="cpu")


@pytest.mark.parametrize(
    ("shape", "kind", "expected", "dtype"),
    [
        (["batch", 3, "h", "w"], "tensor(float)", (2, 3, 64, 96), np.float32),
        (["batch", "h", "w", 3], "tensor(uint8)", (2, 64, 96, 3), np.uint8),
        (["batch", 3, 32, 32], "tensor(float)", (2, 3, 32, 32), np.float32),
        ([1, 3, 32, 32], "tensor(float16)", (1, 3, 32, 32), np.float16),
    ],
)
def test_images_are_what_the_input_takes(shape: Any, kind: str, expected: tuple[int, ...], dtype: Any) -> None:
    images = example_images(SimpleNamespace(shape=shape, type=kind), (64, 96), 2)
    assert (images.shape, images.dtype) == (expected, dtype)
    assert images.min() >= 0 and images.max() <= 255 and images.astype(float).std() > 10


def test_a_file_of_fixed_size_is_run_at_its_size(windowed: Any) -> None:
    assert measure_placement(windowed.path, (32, 32), device="cpu").image[2:] == tuple(windowed.result["canvas"])


def test_a_placement_is_added_to_the_report(plain: Any, measured: Placement, tmp_path: Path) -> None:
    report = Path(shutil.copy(plain.result["report"], tmp_path / "best.onnx.json"))
    before = json.loads(report.read_text())
    add_to_report(report, measured)
    after = json.loads(report.read_text())
    assert after.pop("placement") == json.loads(json.dumps(measured.to_dict()))
    before.pop("placement", None)
    assert after == before


@pytest.mark.parametrize("asked", [True, False])
def test_an_export_measures_placement_when_asked(plain: Any, tmp_path: Path, asked: bool) -> None:
    file, report = tmp_path / "best.onnx", tmp_path / "best.onnx.json"
    shutil.copy(plain.path, file)
    shutil.copy(plain.result["report"], report)
    config = load_config({"placement": asked, "device": "cpu", "imgsz": 64, "max_size": 96, "train_imgsz": [64]})
    exported = {"file": str(file), "report": str(report), "canvas": None, "kept": 1}
    result = deliver(exported, config, SilentProgress())
    assert result["kept"] == 1
    assert (result["placement"] is not None) == asked == ("placement" in json.loads(report.read_text()))
    if asked:
        assert result["placement"]["image"] == [1, 3, 64, 96]
