"""Train, evaluate, predict, export: what each command leaves behind, and that the next one takes it up."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from click.testing import Result
from PIL import Image

from aegl.engine.checkpoint import load_checkpoint
from aegl.runtime.graph import META_KEY


def summary(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def figures(content: dict[str, Any]) -> list[float]:
    return [value for kind in ("box", "mask") for value in content[kind].values() if value is not None]


def test_training_leaves_configuration_figures_and_weights(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} >= {"args.yaml", "results.csv", "metrics.json", "weights"}
    assert {path.name for path in (trained / "weights").iterdir()} >= {"last.pt", "best.pt"}
    assert "iterations: 6" in (trained / "args.yaml").read_text().splitlines()
    with (trained / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["6", "6"]  # training figures, then those of the evaluation
    assert float(rows[0]["loss"]) > 0
    metrics = json.loads((trained / "metrics.json").read_text())
    assert float(rows[1]["mask/AP"]) == pytest.approx(metrics["mask"]["AP"], rel=1e-4, abs=1e-6)


def test_the_saved_configuration_gives_the_same_weights_again(aegl: Any, trained: Path, tmp_path: Path) -> None:
    result = aegl("train", f"cfg={trained / 'args.yaml'}", f"project={tmp_path}", "name=again")
    assert result.exit_code == 0, result.stderr
    first, again = (load_checkpoint(run / "weights" / "last.pt").model for run in (trained, tmp_path / "again"))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_val_without_weights_takes_the_newest_run_and_says_so(aegl: Any, best: Path, tmp_path: Path) -> None:
    for age, run in enumerate(("new", "old")):
        copy = tmp_path / run / "weights" / "best.pt"
        copy.parent.mkdir(parents=True)
        shutil.copy(best, copy)
        os.utime(copy, (10_000 - age, 10_000 - age))
    result = aegl("val", f"project={tmp_path}", "--json")
    newest = tmp_path / "new" / "weights" / "best.pt"
    assert f"weights={newest} (the newest run's)" in result.stderr.splitlines()
    content = summary(result)
    assert content["weights"] == str(newest)
    stored = json.loads((best.parents[1] / "metrics.json").read_text())
    assert content["mask"] == stored["mask"]
    predictions = json.loads(Path(content["run"], "predictions.json").read_text())
    assert len(predictions) == stored["counts"]["detections"]


def test_a_file_can_name_weights_and_project(aegl: Any, best: Path, tmp_path: Path) -> None:
    file = tmp_path / "eval.yaml"
    file.write_text(f"weights: {best}\nproject: {tmp_path / 'evaluations'}\nsplit: train\n")
    content = summary(aegl("val", f"cfg={file}", "--json"))
    assert (content["weights"], content["split"]) == (str(best), "train")
    assert content["run"] == str(tmp_path / "evaluations" / "val")


def test_the_predictions_of_val_score_as_the_model_did(
    aegl: Any, best: Path, tiny_data: tuple[str, ...], tmp_path: Path
) -> None:
    of_model = summary(aegl("val", f"weights={best}", f"project={tmp_path}", "--json"))
    file = Path(of_model["run"]) / "predictions.json"
    of_file = summary(aegl("val", *tiny_data, f"predictions={file}", f"project={tmp_path}", "--json"))
    assert (of_file["box"], of_file["mask"]) == (of_model["box"], of_model["mask"])


@pytest.mark.slow
def test_export_writes_a_proven_file_beside_the_weights_with_the_same_ap(
    aegl: Any, best: Path, exported: Path, tmp_path: Path
) -> None:
    assert exported.is_file()
    report = json.loads(exported.with_name("best.onnx.json").read_text())
    assert report["parity"]["passed"] is True
    onnx = summary(aegl("val", f"weights={exported}", f"project={tmp_path}", "--json"))
    torch_ = summary(aegl("val", f"weights={best}", f"project={tmp_path}", "--json"))
    assert figures(onnx) == pytest.approx(figures(torch_), abs=1e-3)
    assert max(figures(torch_)) > 0  # else equality would say little


@pytest.mark.slow
def test_val_by_an_onnx_file_follows_a_higher_threshold_and_fewer_detections(
    aegl: Any, exported: Path, tmp_path: Path
) -> None:
    words = ("val", f"weights={exported}", f"project={tmp_path}", "--json")
    every = json.loads(Path(summary(aegl(*words))["run"], "predictions.json").read_text())
    middle = sorted(detection["score"] for detection in every)[len(every) // 2]
    surer = json.loads(Path(summary(aegl(*words, f"conf={middle}"))["run"], "predictions.json").read_text())
    assert len(surer) == sum(detection["score"] >= middle for detection in every)
    best_only = json.loads(Path(summary(aegl(*words, "max_det=1"))["run"], "predictions.json").read_text())
    assert len(best_only) == len({detection["image_id"] for detection in every})


@pytest.fixture(scope="module")
def portraits(val_images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The val split with every image made half as wide as it is high, as a COCO file."""
    folder = tmp_path_factory.mktemp("portraits")
    content = json.loads((val_images[0].parents[2] / "val.json").read_text())
    for image in content["images"]:
        with Image.open(val_images[0].parent / Path(image["file_name"]).name) as original:
            original.resize((48, 96)).save(folder / Path(image["file_name"]).name)
        image["width"], image["height"] = 48, 96
    for thing in content["annotations"]:
        x, y, width, height = thing["bbox"]
        thing["bbox"] = [x / 2, y, width / 2, height]
        thing["area"] /= 2
        right, bottom = x / 2 + width / 2, y + height
        thing["segmentation"] = [[x / 2, y, right, y, right, bottom, x / 2, bottom]]
    (folder / "val.json").write_text(json.dumps(content))
    return folder


@pytest.mark.slow
def test_a_file_of_fixed_landscape_size_takes_portraits(aegl: Any, best: Path, portraits: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(best, tmp_path / "fixed.pt"))
    assert aegl("export", f"weights={copy}", "dynamic=false", "imgsz=64", "max_size=96", "parity=false").exit_code == 0
    fixed = copy.with_suffix(".onnx")
    content = summary(aegl("val", f"weights={fixed}", f"data={portraits}", f"project={tmp_path}", "--json"))
    assert content["box"]["AP"] is not None
    predictions = json.loads(Path(content["run"], "predictions.json").read_text())
    assert predictions and all(0 <= p["bbox"][1] + p["bbox"][3] <= 96.001 for p in predictions)
    assert max(p["bbox"][1] + p["bbox"][3] for p in predictions) > 80  # down to the end of the image


@pytest.mark.slow
def test_a_file_without_masks_has_no_figures_of_masks(
    aegl: Any, best: Path, val_images: list[Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copy(best, tmp_path / "boxes.pt"))
    assert aegl("export", f"weights={copy}", "masks=none").exit_code == 0
    boxes = copy.with_suffix(".onnx")
    result = aegl("val", f"weights={boxes}", f"project={tmp_path}", "--json")
    content = summary(result)
    assert "gives no masks: only boxes are scored" in result.stderr
    of_model = summary(aegl("val", f"weights={best}", f"project={tmp_path}", "--json"))
    assert content["mask"] is None
    assert content["box"]["AP"] == pytest.approx(of_model["box"]["AP"], abs=1e-3)
    words = ("predict", f"weights={boxes}", f"source={val_images[0]}", "conf=0.001", f"project={tmp_path}", "--json")
    (image,) = summary(aegl(*words))["images"]
    assert image["detections"] and all("mask" not in found for found in image["detections"])


@pytest.mark.parametrize("kind", ["image", "folder", "glob"])
def test_predict_draws_and_lists_what_it_found(
    aegl: Any, best: Path, val_images: list[Path], tmp_path: Path, kind: str
) -> None:
    folder = val_images[0].parent
    source = {"image": val_images[0], "folder": folder, "glob": folder / "*.jpg"}[kind]
    expected = val_images[:1] if kind == "image" else sorted(folder.glob("*.jpg"))
    result = aegl("predict", f"weights={best}", f"source={source}", "conf=0.001", f"project={tmp_path}")
    assert result.exit_code == 0, result.stderr
    run = tmp_path / "predict"
    listed = json.loads((run / "predictions.json").read_text())
    assert [image["path"] for image in listed] == [str(path) for path in expected]
    assert sum(len(image["detections"]) for image in listed) > 0
    assert {path.name for path in run.glob("*.jpg")} == {path.name for path in expected}
    with Image.open(run / expected[0].name) as drawn, Image.open(expected[0]) as original:
        assert min(drawn.size) >= min(original.size)  # small images are drawn enlarged
    assert all(str(path) in result.stdout for path in expected)


def test_images_of_one_name_do_not_overwrite_each_other(
    aegl: Any, best: Path, val_images: list[Path], tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(val_images[0], tmp_path / folder / "x.jpg")
    result = aegl("predict", f"weights={best}", f"source={tmp_path}/*/x.jpg", f"project={tmp_path / 'runs'}")
    assert result.exit_code == 0, result.stderr
    assert {p.name for p in (tmp_path / "runs" / "predict").glob("*.jpg")} == {"x.jpg", "x-2.jpg"}


def test_predict_can_leave_the_drawing_out(aegl: Any, best: Path, val_images: list[Path], tmp_path: Path) -> None:
    assert (
        aegl("predict", f"weights={best}", f"source={val_images[0]}", f"project={tmp_path}", "save=false").exit_code
        == 0
    )
    assert [path.name for path in (tmp_path / "predict").iterdir()] == ["predictions.json"]


@pytest.mark.slow
def test_predict_by_an_onnx_file_finds_the_same(
    aegl: Any, best: Path, exported: Path, val_images: list[Path], tmp_path: Path
) -> None:
    found = []
    for weights in (best, exported):
        words = (f"weights={weights}", f"source={val_images[0]}", "conf=0.01", f"project={tmp_path}", "--json")
        found.append(summary(aegl("predict", *words))["images"][0]["detections"])
    assert len(found[0]) == len(found[1]) > 0
    assert [d["score"] for d in found[0]] == pytest.approx([d["score"] for d in found[1]], abs=1e-4)


def test_a_run_is_not_overwritten_unless_asked_to(aegl: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    words = ("train", *tiny, f"project={tmp_path}", "name=x")
    assert aegl(*words).exit_code == 0
    last = tmp_path / "x" / "weights" / "last.pt"
    before = last.stat().st_mtime_ns
    refused = aegl(*words)
    assert (refused.exit_code, last.stat().st_mtime_ns) == (2, before)
    assert "name=x" in refused.stderr and "exist_ok=true" in refused.stderr
    assert aegl(*words, "exist_ok=true").exit_code == 0
    assert last.stat().st_mtime_ns > before


@pytest.mark.slow
def test_predict_keeps_to_the_threshold_that_a_file_was_exported_with(
    aegl: Any, exported: Path, val_images: list[Path], tmp_path: Path
) -> None:
    """Its own threshold where that is above predict's; and none is asked for below it."""
    model = onnx.load(exported)
    (entry,) = (prop for prop in model.metadata_props if prop.key == META_KEY)
    content = json.loads(entry.value)
    content["meta"]["conf"] = content["config"]["conf"] = 0.5
    entry.value = json.dumps(content)
    file = tmp_path / "strict.onnx"
    onnx.save(model, file)
    words = ("predict", f"weights={file}", f"source={val_images[0]}", f"project={tmp_path}")
    assert aegl(*words).exit_code == 0
    refused = aegl(*words, "conf=0.4")
    assert refused.exit_code == 2
    assert "conf=0.4" in refused.stderr and "conf=0.5" in refused.stderr
