"""Counts of a data set as `aegl data stats` shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aegl.config.sections import BandsSection, ShapesSection
from aegl.data.source import DataSource, resolve_data
from aegl.data.summary import summarize_source
from aegl.errors import DataError

Content = dict[str, Any]
Write = Callable[..., Path]


def source_of(path: Path, **bands: Any) -> DataSource:
    return resolve_data(str(path), data_dir=path, shapes=ShapesSection(), bands=BandsSection(**bands))


def test_every_figure(content: Content, write: Write) -> None:
    content["annotations"][3] |= {"area": 96**2}
    content["annotations"][0] |= {"area": 32**2}
    summary = summarize_source(source_of(write(content, "train.json").parent))
    assert summary.pop("data").startswith("test_every_figure") and summary.pop("protocol") == "lvis"
    assert Path(summary["train"].pop("file")).name == "train.json"
    assert summary == {
        "train": {
            "images": 3,
            "images_with_objects": 2,
            "annotations": 4,
            "classes": 3,
            "classes_without_instances": 1,
            "instances_per_class": {"max": 2, "median": 1.0, "min": 0},
            "bands": {
                "r": {"classes": 1, "instances": 2},
                "c": {"classes": 1, "instances": 0},
                "f": {"classes": 1, "instances": 1},
            },
            "sizes": {"small": 2, "medium": 1, "large": 1},
            "most_frequent": ["ant 2", "emu 1", "bee 0"],
            "rarest": ["bee 0", "emu 1", "ant 2"],
            "federated": True,
        }
    }


def test_val_is_counted_in_the_bands_of_training(content: Content, write: Write, tmp_path: Path) -> None:
    for category in content["categories"]:
        del category["frequency"]
    write(content, "train.json")
    write({**content, "annotations": content["annotations"][2:3]}, "val.json")
    summary = summarize_source(source_of(tmp_path, names=["few", "many"], edges=[1]))
    assert summary["train"]["bands"] == {
        "few": {"classes": 2, "instances": 1},
        "many": {"classes": 1, "instances": 2},
    }
    assert summary["val"]["bands"] == {
        "few": {"classes": 2, "instances": 1},
        "many": {"classes": 1, "instances": 0},
    }


def test_a_lone_val_split_goes_by_what_it_states(content: Content, write: Write, tmp_path: Path) -> None:
    write(content, "val.json")
    bands = summarize_source(source_of(tmp_path, source="counts", names=["few", "many"], edges=[1]))["val"]["bands"]
    assert bands["many"] == {"classes": 1, "instances": 2}  # image_count 2


def test_splits_of_different_classes(content: Content, write: Write, tmp_path: Path) -> None:
    write(content, "train.json")
    write({"images": [], "annotations": [], "categories": content["categories"][:1]}, "val.json")
    with pytest.raises(DataError, match=r"val.json: its 1 category ids are not the 3 of .*train.json: both files must"):
        summarize_source(source_of(tmp_path))


def test_nothing_to_count(write: Write, tmp_path: Path) -> None:
    write({"images": [], "annotations": [], "categories": []}, "train.json")
    summary = summarize_source(source_of(tmp_path))["train"]
    assert summary["instances_per_class"] == {"max": 0, "median": 0.0, "min": 0} and summary["rarest"] == []
