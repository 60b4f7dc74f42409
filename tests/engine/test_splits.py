"""Which images a run trains on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from aegl.config import load_config
from aegl.data.paste import Paste
from aegl.data.samplers import EpochSampler
from aegl.engine.distributed import World
from aegl.engine.splits import open_splits, training_sampler, training_set
from aegl.errors import ConfigError, DataError


def _annotation(key: int, image: int, **more: Any) -> dict[str, Any]:
    box = {"bbox": [1, 1, 4, 4], "segmentation": [[1, 1, 5, 1, 5, 5]]}
    return {"id": key, "image_id": image, "category_id": 1, **box, **more}


def _data(folder: Path, annotations: list[dict[str, Any]], images: int = 4) -> str:
    content = {
        "images": [{"id": i, "height": 8, "width": 8, "file_name": f"{i}.jpg"} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "ant"}],
    }
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    return str(path)


def _sampler(data: str, world: World | None = None, **keys: Any) -> EpochSampler:
    config = load_config({"data": data, "batch": 2, **keys})
    world = world or World()
    return training_sampler(config, open_splits(config, World()), world)


# Image 1 holds two objects, 2 only a crowd, 3 nothing, 4 one object.
ANNOTATIONS = [_annotation(1, 1), _annotation(2, 1), _annotation(3, 2, iscrowd=1), _annotation(4, 4)]


@pytest.mark.parametrize("empty", [False, True])
def test_class_balanced_epochs_are_as_long_as_random_ones_and_hold_objects_only(tmp_path: Path, empty: bool) -> None:
    data = _data(tmp_path, ANNOTATIONS)
    made, random = (_sampler(data, sampler=name, empty_images=empty) for name in ("class_balanced", "random"))
    assert made.epoch_length == random.epoch_length == len(made.draws(0).images)
    drawn = [made.draws(epoch) for epoch in range(9)]
    assert {int(row) for draws in drawn for row in draws.images} == {0, 3}
    assert {int(label) for draws in drawn for label in draws.focus} == {0}


@pytest.mark.parametrize("sampler", ["random", "rfs"])
@pytest.mark.parametrize(("empty", "expected"), [(False, {0, 3}), (True, {0, 1, 2, 3})])
def test_images_without_objects_are_left_out_unless_asked_for(
    tmp_path: Path, sampler: str, empty: bool, expected: set[int]
) -> None:
    made = _sampler(_data(tmp_path, ANNOTATIONS), sampler=sampler, empty_images=empty, rfs_threshold=0.9)
    assert set(np.concatenate([made.draws(epoch).images for epoch in range(3)]).tolist()) == expected


def test_factors_do_not_depend_on_whether_empty_images_are_left_out(tmp_path: Path) -> None:
    data = _data(tmp_path, ANNOTATIONS)
    kept, left = (_sampler(data, sampler="rfs", empty_images=e, rfs_threshold=0.9).rule for e in (True, False))
    np.testing.assert_array_equal(kept.images[[0, 3]], left.images[[0, 3]])
    assert not left.images[[1, 2]].any()


def test_data_without_any_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.json: no image has an object"):
        _sampler(_data(tmp_path, [_annotation(3, 2, iscrowd=1)]))


def _segments(folder: Path) -> Path:
    (folder / "segments" / "1").mkdir(parents=True)
    Image.new("RGBA", (3, 3), (9, 9, 9, 255)).save(folder / "segments" / "1" / "x.png")
    return folder / "segments"


def test_the_keys_of_pasting_reach_the_training_set(tmp_path: Path) -> None:
    keys = {"probability": 0.25, "min_count": 2, "max_count": 4, "min_size": 0.2, "max_size": 0.3, "min_visible": 0.4}
    given = {f"paste.{name}": value for name, value in keys.items()}
    config = load_config(
        {"data": _data(tmp_path, ANNOTATIONS), "flip": 0.125, "paste.folder": str(_segments(tmp_path)), **given}
    )
    splits = open_splits(config, World())
    with mock.patch("aegl.engine.splits.preprocess_of"):
        paste = training_set(config, splits, mock.Mock()).paste
    assert paste == Paste(splits.segments, 0.25, (2, 4), (0.2, 0.3), 0.4, 0.125)
    assert len(splits.segments) == 1 and splits.segments.labels.tolist() == [0]


def test_pasting_leaves_the_statistics_alone(tmp_path: Path) -> None:
    data = _data(tmp_path, ANNOTATIONS)
    folder = {"paste.folder": str(_segments(tmp_path))}
    plain, pasting = (open_splits(load_config({"data": data, **more}), World()) for more in ({}, folder))
    assert plain.statistics.to_dict() == pasting.statistics.to_dict() and plain.segments is None


def test_the_main_process_alone_reads_every_segment(tmp_path: Path) -> None:
    folder = _segments(tmp_path)
    (folder / "1" / "x.png").write_bytes(b"no picture")
    config = load_config({"data": _data(tmp_path, ANNOTATIONS), "paste.folder": str(folder)})
    with pytest.raises(DataError, match=r"segments: 1/x\.png cannot be read"):
        open_splits(config, World())
    other = mock.Mock(is_main=False, local_rank=1)  # waits for the main process, then for the first of its machine
    assert open_splits(config, other).segments is not None and other.barrier.call_count == 2


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch=2: must be a multiple"):
        _sampler(_data(tmp_path, ANNOTATIONS), World(0, 3))


def test_data_of_boxes_alone_is_trained_with_its_boxes_for_masks(tmp_path: Path) -> None:
    boxes = [{key: value for key, value in each.items() if key != "segmentation"} for each in ANNOTATIONS]
    data = _data(tmp_path, boxes)
    for image in range(1, 5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{image}.jpg")
    splits = open_splits(load_config({"data": data}), World())
    meta = mock.Mock(imgsz=32, max_size=32, stride=32, pad_value=(0, 0, 0))
    with pytest.raises(DataError, match=r"3 of 3 objects have no mask: training needs one .* box_masks=true"):
        training_set(load_config({"data": data}), splits, meta)
    sample = training_set(load_config({"data": data, "box_masks": "true"}), splits, meta)[0]
    assert sample.objects is not None and len(sample.objects) == 2 and sample.objects.masks.all()
