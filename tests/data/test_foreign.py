"""Folders in YOLO's, VOC's and annotation tools' layouts, given to ``data=`` as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from aegl.config import load_config
from aegl.data.source import DataSource
from aegl.data_tasks import data_convert, open_source
from aegl.errors import DataError
from aegl.progress import SilentProgress


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AEGL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def coco(content: dict[str, Any], write: Any, tmp_path: Path, draw: Any) -> Path:
    """A COCO folder of two exhaustively annotated splits, every object with an outline."""
    for image in content["images"]:
        image.pop("neg_category_ids", None)
        image.pop("not_exhaustive_category_ids", None)
        draw(tmp_path / "coco" / image["file_name"], (image["width"], image["height"]))
    kept = [{**content["annotations"][0], "bbox": [1, 2, 3.25, 4.625]}]  # a box as its outline has it
    write({**content, "annotations": kept}, "coco/train.json")
    write({**content, "annotations": kept, "images": content["images"][:2]}, "coco/val.json")
    return tmp_path / "coco"


def opened(data: Path) -> DataSource:
    return open_source(load_config({"data": str(data)}))


def boxes(source: DataSource, split: str) -> list[tuple[Any, ...]]:
    store = source.open(split)
    rows = zip(store.ann_labels.tolist(), store.ann_boxes_xywh.round(4).tolist(), strict=True)
    return sorted((store.categories.names[label], *box) for label, box in rows)


@pytest.mark.parametrize("layout", ["yolo", "voc"])
def test_a_folder_is_used_as_it_is(layout: str, coco: Path, tmp_path: Path) -> None:
    data_convert({"data": str(coco), "to": layout, "output": str(tmp_path / layout)}, SilentProgress())
    source = opened(tmp_path / layout)
    assert source.name == layout and set(source.files) == {"train", "val"}
    for split in ("train", "val"):
        if layout == "yolo":
            assert boxes(source, split) == boxes(opened(coco), split)
        else:  # whole pixels
            assert [row[0] for row in boxes(source, split)] == ["ant"]
        store = source.open(split)
        assert all(store.image_path(row).is_file() for row in range(len(store)))


def test_the_yaml_of_yolo_does_as_well(coco: Path, tmp_path: Path) -> None:
    data_convert({"data": str(coco), "to": "yolo", "output": str(tmp_path / "birds")}, SilentProgress())
    assert boxes(opened(tmp_path / "birds" / "data.yaml"), "val") == boxes(opened(coco), "val")


def test_a_copy_is_made_once_and_anew_after_a_change(coco: Path, tmp_path: Path, cache: Path) -> None:
    data_convert({"data": str(coco), "to": "yolo", "output": str(tmp_path / "birds")}, SilentProgress())
    first = opened(tmp_path / "birds").files
    written = first["train"].stat().st_mtime_ns
    assert opened(tmp_path / "birds").files == first and first["train"].stat().st_mtime_ns == written
    label = next((tmp_path / "birds" / "labels" / "train").glob("two.txt"))
    label.write_text(label.read_text() * 2)
    second = opened(tmp_path / "birds")
    assert second.files != first and second.open("train").num_annotations == 2


def test_paths_as_if_from_a_folder_below(coco: Path, tmp_path: Path) -> None:
    data_convert({"data": str(coco), "to": "yolo", "output": str(tmp_path / "birds")}, SilentProgress())
    description = tmp_path / "birds" / "data.yaml"
    content = yaml.safe_load(description.read_text())
    description.write_text(yaml.safe_dump({**content, "train": "../images/train", "val": "../images/val"}))
    assert boxes(opened(tmp_path / "birds"), "train") == boxes(opened(coco), "train")


def test_a_folder_for_each_split_with_its_images_and_one_file(coco: Path, tmp_path: Path) -> None:
    for split, folder in (("train", "train"), ("val", "valid")):
        shutil.copytree(coco, tmp_path / "export" / folder, ignore=shutil.ignore_patterns("*.json"))
        shutil.copy(coco / f"{split}.json", tmp_path / "export" / folder / "_annotations.coco.json")
    source = opened(tmp_path / "export")
    assert boxes(source, "train") == boxes(opened(coco), "train") and len(source.open("val")) == 2
    assert source.open("val").image_path(0).parent.name == "valid"


def test_annotation_files_come_before_a_description_beside_them(coco: Path) -> None:
    (coco / "data.yaml").write_text("names: [a, b]\ntrain: images/train\n")
    assert opened(coco).files["train"] == coco / "train.json"


def test_a_bad_line_names_file_and_line(coco: Path, tmp_path: Path, cache: Path) -> None:
    data_convert({"data": str(coco), "to": "yolo", "output": str(tmp_path / "birds")}, SilentProgress())
    (tmp_path / "birds" / "labels" / "train" / "two.txt").write_text("0 0.5 0.5 0.1\n")
    with pytest.raises(DataError, match=r"two\.txt: line 1: has 3 numbers"):
        opened(tmp_path / "birds")
    assert not [*(cache / "foreign").iterdir()]


def test_a_folder_of_nothing_known_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.json.txt").write_text(json.dumps({}))
    with pytest.raises(DataError, match="no annotations found; looked for COCO's or LVIS's"):
        opened(tmp_path / "empty")
