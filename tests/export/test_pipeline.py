"""Export from end to end: what lies on disk and what the user is told, above all when the file is wrong."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aegl.errors import ConfigError, ExportError, RunError
from aegl.export.onnx_graph import Exported
from aegl.export.pipeline import export_and_prove
from aegl.models.backbone import TimmBackbone
from aegl.progress import SilentProgress


class Messages(SilentProgress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def message(self, text: str) -> None:
        self.told.append(text)


def sidecar(result: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(result["report"]).read_text())
    return content


@pytest.fixture
def export(plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The whole pipeline, but for the graph, which is that of the plain detector."""

    def copied(model: Any, meta: Any, path: Path, **options: Any) -> Exported:
        shutil.copy(plain.path, path)
        return Exported(path, options["opset"] or 18, None)

    monkeypatch.setattr("aegl.export.pipeline.export_onnx", copied)

    def run(model: Any = plain.model, *, parity: bool = True, progress: Any = None) -> dict[str, Any]:
        return export_and_prove(
            model,
            plain.meta,
            tmp_path / "model.onnx",
            config={},
            opset=None,
            dynamic=True,
            parity=parity,
            progress=progress or SilentProgress(),
        )

    return run


@pytest.fixture
def another_model(plain: Any) -> Any:
    """The plain detector with other weights: the file is not its."""
    model = copy.deepcopy(plain.model)
    with torch.no_grad():
        model.box_head.classifier.weight.mul_(1.1)
    return model


def test_file_and_report_lie_side_by_side(case: Any) -> None:
    result, content = case.result, sidecar(case.result)
    assert Path(result["report"]) == Path(f"{result['file']}.json")
    assert result["megabytes"] == pytest.approx(Path(result["file"]).stat().st_size / 2**20)
    assert content["meta"] == case.meta.to_dict()
    assert content["parity"] == result["parity"]
    assert content["parity"]["passed"] is True
    assert content["opset"] == result["opset"]
    assert content["canvas"] == (list(result["canvas"]) if result["canvas"] else None)
    json.dumps(result, allow_nan=False)


def test_steps_are_told(export: Any) -> None:
    progress = Messages()
    result = export(progress=progress)
    assert progress.told == [f"writing {result['file']}", "comparing it with PyTorch"]


def test_a_file_that_passes_is_no_cause_for_warning(export: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert export()["parity"]["passed"] is True
    assert not caplog.records


def test_a_wrong_file_is_kept_with_a_report_that_says_so(
    export: Any, another_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    result = export(another_model)
    assert result["parity"]["passed"] is False
    assert Path(result["file"]).is_file()
    assert sidecar(result)["parity"] == result["parity"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{result['file']}: parity FAILED: ")
    assert "do not use the file" in record.getMessage()


def test_a_file_that_could_not_be_compared_is_warned_of(
    export: Any, plain: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(images: Any) -> Any:
        found = plain.pytorch(images)
        return replace(found, num_detections=torch.zeros_like(found.num_detections))

    monkeypatch.setattr("aegl.export.pipeline.OnnxBackend", lambda *_, **__: nothing)
    monkeypatch.setattr("aegl.export.pipeline.TorchBackend", lambda *_, **__: nothing)
    result = export()
    assert result["parity"]["passed"] is None
    assert sidecar(result)["parity"]["passed"] is None
    assert "NOT SHOWN" in caplog.text


def test_no_comparison_where_none_is_wanted(export: Any) -> None:
    result = export(parity=False)
    assert result["parity"] is None
    assert sidecar(result)["parity"] is None


def test_a_comparison_that_breaks_off_leaves_no_older_verdict(export: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result = export()
    assert sidecar(result)["parity"]["passed"] is True

    def breaks(*_: Any, **__: Any) -> None:
        raise RunError("out of memory")

    monkeypatch.setattr("aegl.export.pipeline.check_parity", breaks)
    with pytest.raises(RunError, match="out of memory"):
        export()
    assert Path(result["file"]).is_file()
    assert sidecar(result)["parity"] is None


def test_an_export_that_fails_leaves_the_older_file_and_its_report(
    export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = export()

    def refuses(*_: Any, **__: Any) -> None:
        raise ExportError("cannot")

    monkeypatch.setattr("aegl.export.pipeline.export_onnx", refuses)
    with pytest.raises(ExportError, match="cannot"):
        export()
    assert Path(result["file"]).is_file()
    assert sidecar(result)["parity"]["passed"] is True


@pytest.mark.parametrize("name", ["swinv2_cr_tiny_224", "davit_tiny"])
def test_backbones_with_windows_take_any_size_but_are_exported_for_one(name: str) -> None:
    backbone = TimmBackbone(name, pretrained=False).eval()
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 96, 160))[0].shape[2:] == (24, 40)
    assert backbone.dynamic_size is False


@pytest.mark.parametrize("name", ["gcvit_xxtiny", "maxvit_rmlp_pico_rw_256", "coatnet_nano_rw_224", "hiera_tiny_224"])
def test_backbones_for_images_of_one_size_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"backbone\.name={name}: takes images of one size only"):
        TimmBackbone(name, pretrained=False)


def test_options_a_backbone_has_not_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"frozen_stages=1: mvitv2_tiny does not show its stages.*frozen_stages=-1"):
        TimmBackbone("mvitv2_tiny", pretrained=False, frozen_stages=1)
    with pytest.raises(ConfigError, match=r"drop_path=0\.1: efficientvit_b0 has none; give backbone\.drop_path=0"):
        TimmBackbone("efficientvit_b0", pretrained=False, drop_path=0.1)
