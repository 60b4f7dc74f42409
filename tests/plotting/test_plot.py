"""`aegl plot` on folders of runs and on data sets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aegl.errors import AeglError, DataError
from aegl.plotting.figures import FIGURES
from aegl.plotting.records import open_records
from aegl.progress import SilentProgress
from aegl.tasks import plot

SHARED = os.environ.get("AEGL_SHARED_DATA")


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Writes a run's folder of two classes, as training leaves it."""

    def write(name: str, ap: float = 0.4, **other: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "args.yaml").write_text("data: shapes_lt\n")
        counted = {"edges": [0.0, 0.5, 1.0], "per_band": {b: {"true": [1, 30], "false": [70, 9]} for b in "rcf"}}
        metrics = {
            "bands": ["r", "c", "f"], "box": {"AP": ap}, "mask": {"AP": ap}, "ground_truth_hash": "x",
            "per_class": {
                "class": ["ant", "bee"], "band": ["r", "f"], "train_instances": [3, 90], "box_AP": [ap, None],
                "mask_AP": [ap, 0.5],
            },
            "scores": {"box": counted, "mask": counted},
            "confusions": [{"class": "ant", "predicted": "bee", "count": 4, "mean_score": 0.5}],
        }  # fmt: skip
        (folder / "metrics.json").write_text(json.dumps(metrics | other))
        precision = np.full((2, 101), 0.5, dtype=np.float32)
        np.savez(folder / "pr_curves.npz", recall=np.linspace(0, 1, 101), mask_precision=precision)
        (folder / "results.csv").write_text(
            "iteration,epoch,lr,loss,cls,protocol,box/AP,mask/AP,mask/APr\n20,0.1,0.02,2.5,1.5,,,,\n40,0.2,0.02,2,1,,,,\n"
            "40,,,,,lvis,0.3,0.2,0.1\n"
        )
        Image.effect_noise((90, 60), 60).convert("RGB").save(tmp_path / "picture.png")
        thing = {"label": 1, "box": [10, 10, 30, 20], "mask": None}
        entry = {
            "image_id": 5, "file": str(tmp_path / "picture.png"), "height": 60, "width": 90, "found": 1,
            "objects": [thing], "detections": [{**thing, "score": 0.7}],
        }  # fmt: skip
        (folder / "examples.json").write_text(json.dumps({"best": [], "worst": [], "rarest": [entry]}))
        (folder / "gradients.csv").write_text(
            "class,band,instances,positive,negative_foreground,negative_background\nant,r,3,1,2,3\nbee,f,90,1,1,9\n"
        )
        return folder

    return write


def drawn(**keys: Any) -> dict[str, Any]:
    return plot(keys, SilentProgress())


def test_everything_that_a_run_gives_is_drawn_into_it(run: Any) -> None:
    folder = run("train")
    result = drawn(runs=[str(folder)])
    assert set(result["figures"]) == set(FIGURES) - {"repeat_factors"}
    assert result["output"] == str(folder / "plots")
    assert "data=" in result["left_out"]["repeat_factors"]
    files = [Path(file) for files in result["figures"].values() for file in files]
    assert all(file.is_file() for file in files) and {file.suffix for file in files} == {".png", ".svg"}


def test_two_runs_share_a_figure_or_have_one_each(run: Any, tmp_path: Path) -> None:
    runs = [str(run("a/train")), str(run("b/train", ap=0.6))]
    result = drawn(runs=runs, output=str(tmp_path / "out"))
    names = {Path(file).stem for files in result["figures"].values() for file in files}
    assert {"class_ap", "losses", "pr_curves-a-train", "pr_curves-b-train", "loss_terms-b-train"} <= names
    text = (tmp_path / "out" / "class_ap.svg").read_text("utf-8")
    assert "a/train: 40.0" in text and "b/train: 60.0" in text


def test_a_figure_of_one_run_says_whose_it_is(run: Any) -> None:
    folder = run("my_run")
    drawn(runs=[str(folder)], figures=["scores", "calibration", "confusions", "pr_curves", "ap_by_count", "class_ap"])
    texts = {file.stem: file.read_text("utf-8") for file in (folder / "plots").glob("*.svg")}
    assert all("my_run" in text for text in texts.values())
    assert all("mask" in texts[name] for name in ("scores", "calibration", "pr_curves", "ap_by_count"))
    assert "box AP, percent" in texts["class_ap"]


def test_repeat_factors_are_told_by_band(tmp_path: Path) -> None:
    small = {"shapes.classes": 6, "shapes.max_instances": 40, "shapes.imbalance": 20, "shapes.imgsz": 32}
    keys = {**small, "data_dir": str(tmp_path), "rfs_threshold": 0.5, "output": str(tmp_path / "out")}
    result = drawn(data="shapes_lt", figures=["repeat_factors"], **keys)
    assert set(result["figures"]) == {"repeat_factors"}
    text = (tmp_path / "out" / "repeat_factors.svg").read_text("utf-8")
    assert "rare: " in text and "common: " in text and "times" in text


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_figure_that_cannot_be_drawn_says_what_is_missing(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "args.yaml").write_text("")
    with pytest.raises(DataError, match=rf"figures={name}: .*(is not there|needs data)"):
        drawn(runs=[str(tmp_path / "empty")], figures=[name])


def test_runs_on_other_ground_truth_are_not_compared(run: Any) -> None:
    runs = [str(run("a")), str(run("b", ground_truth_hash="y"))]
    with pytest.raises(DataError, match="evaluated on other ground truth than"):
        drawn(runs=runs, figures=["class_ap"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"figures": ["class_app"], "data": "shapes_lt"}, "figures=class_app: unknown figure.*class_ap"),
        ({}, "runs, data: neither is given"),
        ({"runs": ["nowhere"]}, "runs=nowhere: no run's folder"),
        ({"data": "nowhere"}, "data=nowhere: unknown data set"),
    ],
)
def test_wrong_requests(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(AeglError, match=message):
        drawn(**keys)


def test_categories_with_counts_do_for_the_tail(tmp_path: Path) -> None:
    path = tmp_path / "v1.json"
    path.write_text(json.dumps({"categories": [{"id": k, "name": str(k), "instance_count": k} for k in (1, 2, 30)]}))
    result = drawn(data=str(path), output=str(tmp_path / "out"))
    assert set(result["figures"]) == {"counts"}
    assert "v1: 3 classes, 33 instances, 30 to 1" in (tmp_path / "out" / "counts.svg").read_text("utf-8")
    path.write_text(json.dumps({"categories": [{"id": 1, "name": "a", "instance_count": None}]}))
    with pytest.raises(DataError, match="not every category has an instance_count"):
        drawn(data=str(path))


def test_names_are_as_short_as_can_be(run: Any) -> None:
    assert [r.name for r in open_records([str(run("a/train")), str(run("a/val"))])] == ["train", "val"]


@pytest.mark.skipif(SHARED is None, reason="AEGL_SHARED_DATA names no folder")
def test_figure_4_has_the_facts_of_lvis_v1(tmp_path: Path) -> None:
    drawn(data=f"{SHARED}/lvis_meta/lvis_v1_categories.json", figures=["counts"], output=str(tmp_path))
    text = (tmp_path / "counts.svg").read_text("utf-8")
    assert "1203 classes, 1,270,141 instances, 50,552 to 1" in text
