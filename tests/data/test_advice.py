"""What is proposed for a data set, and that it can be run."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aegl.config import load_config
from aegl.data_tasks import data_advise
from aegl.progress import SilentProgress


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def advise(write: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Advice on a set with so many images of each class, one object an image."""

    def of(*counts: int, val: tuple[int, ...] | None = None, size: tuple[int, int] = (640, 480), side: float = 100.0):
        write(_content(counts, size, side), "set/train.json")
        if val is not None:
            write(_content(val, size, side), "set/val.json")
        return data_advise({"data": str(tmp_path / "set")}, SilentProgress())

    return of


def _content(counts: tuple[int, ...], size: tuple[int, int], side: float) -> dict[str, Any]:
    labels = [label for label, count in enumerate(counts, start=1) for _ in range(count)]
    width, height = size
    images = [{"id": k, "width": width, "height": height, "file_name": f"{k}.jpg"} for k in range(1, len(labels) + 1)]
    ring = [0, 0, side, 0, side, side, 0, side]
    annotations = [
        {"id": k, "image_id": k, "category_id": label, "bbox": [0, 0, side, side], "area": side**2,
         "segmentation": [ring]}
        for k, label in enumerate(labels, start=1)
    ]  # fmt: skip
    categories = [{"id": label, "name": f"class {label}"} for label in range(1, len(counts) + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def proposed(advice: dict[str, Any]) -> dict[str, Any]:
    return {proposal["key"]: proposal["value"] for proposal in advice["proposals"]}


def test_a_tail_gets_a_method_and_a_sampler_that_repeats_it(advise: Any) -> None:
    advice = advise(300, 40, 3, val=(3, 3, 3))
    keys = proposed(advice)
    assert keys["method"] == "seesaw" and keys["sampler"] == "rfs"
    # Frequent classes are in 300 of 343 images: all else is repeated, the rarest class sqrt(300 / 3) = 10 times.
    assert keys["rfs_threshold"] == pytest.approx(300 / 343, rel=0.02)
    reasons = " ".join(proposal["reason"] for proposal in advice["proposals"])
    assert "100 times the objects" in reasons and "the rarest 10.0 times" in reasons and "19.6 for rare" in reasons


def test_no_class_is_repeated_more_than_ten_times(advise: Any) -> None:
    keys = proposed(advise(500, 1))
    assert keys["rfs_threshold"] == pytest.approx(100 / 501, rel=0.03)  # sqrt(100 / 1) = 10


def test_balanced_data_gets_the_plain_baseline(advise: Any) -> None:
    keys = proposed(advise(30, 25, 20, val=(1, 1, 1)))
    assert (keys["method"], keys["sampler"]) == ("softmax_ce", "random") and "rfs_threshold" not in keys


@pytest.mark.parametrize(
    ("size", "expected"), [((640, 480), (480, 800)), ((100, 70), (64, 128)), ((4000, 3000), (None, None))]
)
def test_inputs_are_no_larger_than_the_images(size: Any, expected: Any, advise: Any) -> None:
    keys = proposed(advise(20, 2, size=size, side=20.0))
    assert (keys.get("imgsz"), keys.get("max_size")) == expected


def test_few_images_are_seen_more_often(advise: Any) -> None:
    assert proposed(advise(400, 100))["epochs"] == 120
    assert proposed(advise(20, 2))["epochs"] == 300


def test_bands_that_no_class_is_in_are_moved(advise: Any) -> None:
    keys = proposed(advise(60, 50, 40, 30, 20, 12))  # no class with up to 10 images, none with more than 100
    assert keys["bands.edges"] == [20, 40] and keys["bands.source"] == "counts"
    assert "bands.edges" not in proposed(advise(200, 150, 40, 30, 4, 2))


def test_what_is_missing_is_said(advise: Any) -> None:
    alone = advise(20, 2)
    assert any("no val split" in warning for warning in alone["warnings"])
    advice = advise(20, 2, 0, val=(3, 0, 0), side=5.0)
    text = "\n".join(advice["warnings"])
    assert "1 classes have no object to learn from" in text and "2 classes have no object in val" in text
    assert "smaller than 5 pixels" in text


def test_the_command_is_one_that_the_configuration_takes(advise: Any) -> None:
    words = shlex.split(advise(300, 40, 3, val=(3, 3, 3))["train"])
    config = load_config(dict(word.split("=", 1) for word in words[2:]))
    assert words[:2] == ["aegl", "train"] and config.loss.name == "seesaw" and config.sampler == "rfs"
    assert config.imgsz == 480 and config.train_imgsz == [384, 416, 448, 480]


@pytest.mark.parametrize("gpu", [False, True])
def test_where_there_is_no_gpu_a_training_of_minutes_is_named_too(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    write(_content((300, 40, 3), (640, 480), 100.0), "set/train.json")
    advice = data_advise({"data": str(tmp_path / "set")}, SilentProgress())
    if gpu:
        assert advice["trial"] is None
        return
    program, verb, *words = shlex.split(advice["trial"])
    keys = dict(word.split("=", 1) for word in words)
    assert (program, verb) == ("aegl", "train") and len(keys) == len(words)
    config = load_config({key: value for key, value in keys.items() if key != "data"})
    assert (config.model, config.method, config.sampler, config.imgsz) == ("mini", "seesaw", "rfs", 160)
