"""Which images a run trains on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegl.config import load_config
from aegl.data.samplers import EpochSampler
from aegl.engine.distributed import World
from aegl.engine.splits import open_splits, training_sampler
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


@pytest.mark.parametrize("sampler", ["random", "rfs"])
@pytest.mark.parametrize(("empty", "expected"), [(False, {0, 3}), (True, {0, 1, 2, 3})])
def test_images_without_objects_are_left_out_unless_asked_for(
    tmp_path: Path, sampler: str, empty: bool, expected: set[int]
) -> None:
    made = _sampler(_data(tmp_path, ANNOTATIONS), sampler=sampler, empty_images=empty, rfs_threshold=0.9)
    assert set(np.concatenate([made.epoch_indices(epoch) for epoch in range(3)]).tolist()) == expected


def test_factors_do_not_depend_on_whether_empty_images_are_left_out(tmp_path: Path) -> None:
    data = _data(tmp_path, ANNOTATIONS)
    kept, left = (_sampler(data, sampler="rfs", empty_images=e, rfs_threshold=0.9).factors for e in (True, False))
    np.testing.assert_array_equal(kept.images[[0, 3]], left.images[[0, 3]])
    assert not left.images[[1, 2]].any()


def test_data_without_any_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.json: no image has an object"):
        _sampler(_data(tmp_path, [_annotation(3, 2, iscrowd=1)]))


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch=2: must be a multiple"):
        _sampler(_data(tmp_path, ANNOTATIONS), World(0, 3))
