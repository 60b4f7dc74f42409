"""What `data check sampler=rfs` foretells is what the sampler then does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegl.config import load_config
from aegl.data_tasks import data_check, open_source
from aegl.engine.distributed import World
from aegl.engine.splits import open_splits, training_sampler
from aegl.progress import SilentProgress
from aegl_cli.data import main

CLASSES = ["rare", "common", "frequent", "along"]


@pytest.fixture
def data(tmp_path: Path, draw: Any) -> str:
    """200 images: `frequent` in all but two, which are empty, `rare` in 2 and with it `along` twice, `common` in 20."""
    held = [[2] + [0, 3, 3] * (i < 2) + [1] * (10 <= i < 30) for i in range(198)] + [[], []]
    pairs = [(i, c) for i, classes in enumerate(held) for c in classes]
    box = {"bbox": [0, 0, 4, 4], "area": 16, "segmentation": [[0, 0, 4, 0, 4, 4]]}
    draw(tmp_path / "x.png", (8, 8))
    content = {
        "images": [{"id": i, "height": 8, "width": 8, "file_name": "x.png"} for i in range(200)],
        "annotations": [{"id": k, "image_id": i, "category_id": c, **box} for k, (i, c) in enumerate(pairs)],
        "categories": [{"id": c, "name": name} for c, name in enumerate(CLASSES)],
    }
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    return str(tmp_path)


KEYS = {"sampler": "rfs", "rfs_threshold": "0.25", "bands.edges": "10,100"}


@pytest.mark.parametrize(
    "sampler", [{"rfs_rounding": "stochastic"}, {"rfs_rounding": "ceil"}, {"sampler": "class_balanced"}], ids=str
)
@pytest.mark.parametrize("empty", ["true", "false"])
def test_the_plan_is_the_mean_of_epochs(sampler: dict[str, str], empty: str, data: str) -> None:
    keys = {"data": data, **KEYS, **sampler, "empty_images": empty}
    plan = data_check(keys, SilentProgress())["sampling"]
    config = load_config(keys)
    store = open_source(config).open("train")
    stream = training_sampler(config, open_splits(config, World()), World())
    epochs = [stream.draws(epoch).images for epoch in range(300)]
    never = 2 if empty == "false" or config.sampler == "class_balanced" else 0
    assert plan["images"] == 200 and plan["images_left_out"] == never
    assert plan["images_per_epoch"] == pytest.approx(np.mean([len(epoch) for epoch in epochs]), rel=0.01)
    shown = np.bincount(np.concatenate(epochs), minlength=200) / len(epochs)
    seen = np.bincount(store.ann_labels, weights=shown[store.ann_image], minlength=4)
    for band, labels in {"r": [0, 3], "c": [1], "f": [2]}.items():
        figures = plan["bands"][band]
        there = np.bincount(store.ann_labels, minlength=4)[labels]
        assert (figures["classes"], figures["instances"]) == (len(labels), there.sum())
        assert figures["instances_seen"] == pytest.approx(seen[labels].sum(), rel=0.02)
        assert figures["mean_repeat"] == pytest.approx((seen[labels] / there).mean(), rel=0.02)


def test_classes_that_are_carried_along_are_named(data: str) -> None:
    plan = data_check({"data": data, **KEYS}, SilentProgress())["sampling"]
    (along,) = plan["boosted_along"]
    # Two images of 5 times, twenty of 1.58 times, the others once: 198 become 217.7.
    assert (along["class"], along["band"], along["instances"]) == ("frequent", "f", 198)
    assert along["repeat"] == pytest.approx((2 * 5 + 20 * np.sqrt(2.5) + 176) / 198, abs=1e-3)


def test_class_balanced_sampling_shows_every_class_equally_often_and_what_comes_along(data: str) -> None:
    plan = data_check({"data": data, **KEYS, "sampler": "class_balanced"}, SilentProgress())["sampling"]
    assert plan["images_per_epoch"] == 198 and plan["images_left_out"] == 2
    # A quarter of the epoch for each class. `rare` and `along` share two images; `frequent` is in all 198.
    rare = 2 * 198 / 4 + 2 / 198 * 198 / 4
    assert plan["bands"]["r"] == {"classes": 2, "instances": 6, "instances_seen": 3 * rare, "mean_repeat": rare / 2}
    assert plan["bands"]["f"]["mean_repeat"] == 1 and plan["boosted_along"] == []


def test_random_sampling_repeats_nothing(data: str) -> None:
    plan = data_check({"data": data, "sampler": "random"}, SilentProgress())["sampling"]
    assert plan["images_per_epoch"] == 198 and plan["boosted_along"] == []
    assert all(band["mean_repeat"] in (1, None) for band in plan["bands"].values())


def test_without_the_key_and_for_broken_records_there_is_no_plan(data: str) -> None:
    assert "sampling" not in data_check({"data": data}, SilentProgress())
    path = Path(data) / "train.json"
    content = json.loads(path.read_text())
    del content["annotations"][0]["bbox"]
    path.write_text(json.dumps(content))
    report = data_check({"data": data, **KEYS}, SilentProgress())
    assert "sampling" not in report and not report["ok"]


def test_the_command_line_shows_it(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"data={data}", *(f"{key}={value}" for key, value in KEYS.items())]) == 0
    shown = capsys.readouterr().out
    assert "sampler=rfs: 218 images an epoch, from 200, 2 without objects left out" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["r", "2", "6", "30", "5.00"] in rows and ["f", "1", "198", "218", "1.10"] in rows
    assert "boosted along with rarer classes:" in shown and "  frequent (f): 198 -> 218, x 1.10" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chek", "data=x"], "data chek: unknown (did you mean check?)"),
        (["convert", "data=x.json", "to=cocoo"], "to=cocoo"),
        (["convert", "data=x.json", "output=y"], "to: not given; name the format to write"),
        (["split", "data=shapes_lt", "fracton=0.1"], "fraction"),
        (["split", "data=shapes_lt", "fraction=1"], "fraction=1"),
    ],
)
def test_wrong_words_are_answered_with_what_to_say(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("aegl: error: ") and message in error and "Traceback" not in error
