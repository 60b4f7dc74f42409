"""The demo ends with an error when the ONNX file is not the model."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest

from aegl.export.parity import CaseReport, ParityReport

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import demo

    return demo


def report(agree: int, total: int) -> ParityReport:
    return ParityReport((CaseReport("image 0", agree, total, 0.0, 0.0, 0.0, None),))


def test_the_same_model_passes(demo: ModuleType) -> None:
    demo.require_the_same(0.00099, report(9990, 10000))


@pytest.mark.parametrize("gap", [0.001, 0.2, math.nan])
def test_a_tenth_of_a_point_of_ap_fails(demo: ModuleType, gap: float) -> None:
    with pytest.raises(SystemExit, match="AP differs"):
        demo.require_the_same(gap, report(1000, 1000))


@pytest.mark.parametrize("found", [(9989, 10000), (0, 0)])
def test_other_detections_fail(demo: ModuleType, found: tuple[int, int]) -> None:
    with pytest.raises(SystemExit, match=r"is not the model\. On the val images: parity (FAILED|NOT SHOWN)"):
        demo.require_the_same(0.0, report(*found))
