"""`batch=auto`: the largest batch that fits, found with meters that know the answer, and with the real model."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aegl.config import load_config
from aegl.engine import auto_batch, build
from aegl.engine.batch_size import Meter, images_per_step, largest_pass
from aegl.engine.distributed import World
from aegl.engine.splits import open_splits
from aegl.errors import ConfigError, RunError
from aegl.progress import SilentProgress

SMALL: dict[str, Any] = {
    "data": "shapes_lt",
    "model": "mini",
    "method": "fbs_aegl",
    "shapes": {"classes": 4, "max_instances": 12, "imbalance": 6, "val_per_class": 2, "imgsz": 64},
    "neck.channels": 16,
    "box.hidden": 32,
    "mask.channels": 8,
    "imgsz": 64,
    "max_size": 64,
    "train_imgsz": [48, 64],
    "batch": "auto",
    "iterations": 2,
    "warmup_iterations": 1,
    "workers": 0,
    "device": "cpu",
    "report": False,
}


def linear(fixed: int, each: int, capacity: int, asked: list[int] | None = None) -> Meter:
    """Memory that is a straight line; more than there is does not fit."""

    def peak(images: int) -> int | None:
        if asked is not None:
            asked.append(images)
        needed = fixed + each * images
        return None if needed > capacity else needed

    return Meter(peak, capacity)


class Others(World):
    """Processes whose smallest number is the given one."""

    number = 1

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        return [tensor, torch.tensor(min(int(tensor), self.number))]


@given(st.integers(0, 500), st.integers(1, 100), st.integers(1, 2000), st.integers(1, 64))
def test_what_is_found_fits_and_fills(fixed: int, each: int, capacity: int, most: int) -> None:
    meter = linear(fixed, each, capacity)
    if fixed + each > capacity:
        with pytest.raises(RunError, match="not even one image fits"):
            largest_pass(meter, most, World())
        return
    number = largest_pass(meter, most, World())
    assert 1 <= number <= most
    assert meter.peak(number) is not None
    assert number == most or fixed + each * (number + 1) > 0.9 * capacity


def test_the_number_found_is_proved_by_a_step() -> None:
    asked: list[int] = []
    assert largest_pass(linear(100, 10, 1000, asked), 64, World()) == 64
    assert asked == [1, 2, 64]


def test_memory_that_grows_faster_than_a_line_is_found_out() -> None:
    meter = Meter(lambda images: 100 + images**2 if 100 + images**2 <= 1000 else None, 1000)
    number = largest_pass(meter, 64, World())
    assert 20 < number <= 30


def test_a_second_image_that_does_not_fit_leaves_one() -> None:
    assert largest_pass(linear(0, 60, 100), 64, World()) == 1


def test_processes_agree_on_the_smallest() -> None:
    others = Others()
    object.__setattr__(others, "number", 7)
    assert largest_pass(linear(0, 1, 1000), 64, others) == 7


def test_on_a_cpu_it_is_refused(tmp_path: Path) -> None:
    config = load_config({**SMALL, "data_dir": tmp_path / "data", "project": tmp_path})
    with pytest.raises(ConfigError, match=r"batch=auto: is measured on a CUDA device, .* give a number"):
        build.train(config, SilentProgress())
    assert not (tmp_path / "train").exists()


def test_nothing_but_training_takes_it() -> None:
    with pytest.raises(ConfigError, match="batch=auto"):
        images_per_step(load_config({"batch": "auto"}))


@pytest.mark.parametrize("method", ["forest_rcnn", "loce", "fasa"])
def test_the_trial_takes_every_kind_of_method(tmp_path: Path, method: str) -> None:
    """Those that have to be told of the classes first, that keep features, and that need images drawn for a class."""
    config = load_config({**SMALL, "method": method, "data_dir": tmp_path / "data", "batch": 2})
    auto_batch.trial_step(config, open_splits(config, World()), World())(2)


def test_a_run_records_the_number_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the real trial step, whose memory is counted in pixels."""

    def open_meter(config: Any, splits: Any, world: World) -> Meter:
        step = auto_batch.trial_step(config, splits, world)

        def peak(images: int) -> int:
            step(images)
            return 1000 + 100 * images

        return Meter(peak, 1340)

    monkeypatch.setitem(auto_batch._METERS, "cpu", open_meter)
    caplog.set_level(logging.INFO, "aegl")
    keys = {**SMALL, "data_dir": tmp_path / "data", "project": tmp_path, "accumulate": 2, "lr_scaling": "linear"}
    result = build.train(load_config(keys), SilentProgress())
    saved = load_config({"cfg": str(Path(result["run"]) / "args.yaml")})
    assert saved.batch == 4  # two fit into 0.9 * 1340, in each of two passes
    assert any("batch=auto: batch=4 (2 images in a pass" in record.getMessage() for record in caplog.records)
    assert saved.lr == load_config(keys).lr


def test_the_trial_sees_the_worst_of_the_data(tmp_path: Path) -> None:
    config = load_config(
        {**SMALL, "data_dir": tmp_path / "data", "imgsz": 64, "max_size": 128, "train_imgsz": [64, 96]}
    )
    splits = open_splits(config, World())
    canvas, objects = auto_batch.worst_case(config, splits, 32)
    assert canvas == (96, 96)  # the images are square
    assert objects == 12  # a quarter of the 48 regions of model=mini
    few = load_config({**SMALL, "roi.batch_per_image": 1})
    assert auto_batch.worst_case(few, splits, 32)[1] == int(np.diff(splits.train.ann_offsets).max())
