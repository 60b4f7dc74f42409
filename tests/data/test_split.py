"""Splitting: disjoint, complete, the same for the same seed, and fair to every class, the rarest first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aegl.config import load_config
from aegl.data.build import build_store
from aegl.data.split import split_images
from aegl.data.store import AnnotationStore
from aegl.data_tasks import data_split, open_source
from aegl.errors import ConfigError
from aegl.progress import SilentProgress

QUIET = SilentProgress()


def content_of(classes: list[list[int]], num_classes: int = 5, **fields: Any) -> dict[str, Any]:
    """A file of images with objects of these classes."""
    pairs = [(i, c) for i, held in enumerate(classes) for c in held]
    box = {"bbox": [0, 0, 4, 4], "segmentation": [[0, 0, 4, 0, 4, 4]]}
    return {
        "images": [
            {"id": i + 1, "height": 8, "width": 8, "file_name": f"{i}.jpg", **fields} for i in range(len(classes))
        ],
        "annotations": [{"id": k + 1, "image_id": i + 1, "category_id": c, **box} for k, (i, c) in enumerate(pairs)],
        "categories": [{"id": c, "name": str(c)} for c in range(num_classes)],
    }


def store_of(folder: Path, classes: list[list[int]]) -> AnnotationStore:
    (folder / "x.json").write_text(json.dumps(content_of(classes)))
    return build_store(folder / "x.json", cache_dir=folder / "cache")


def images_with(store: AnnotationStore, label: int) -> np.ndarray:
    return np.unique(store.ann_image[store.ann_labels == label])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=40),
    fraction=st.sampled_from([0.1, 0.2, 0.5, 0.9]),
    seed=st.integers(0, 3),
)
def test_the_rarest_class_gets_its_share_exactly(
    classes: list[list[int]], fraction: float, seed: int, tmp_path: Path
) -> None:
    store = store_of(tmp_path, classes)
    val = split_images(store, fraction, seed)
    assert val.shape == (len(classes),)
    np.testing.assert_array_equal(val, split_images(store, fraction, seed))
    holders = sorted((rows for c in range(5) if len(rows := images_with(store, c))), key=len)
    if holders and len(holders[0]) >= 2:
        number = len(holders[0])
        assert val[holders[0]].sum() == min(max(round(fraction * number), 1), number - 1)
    elif holders:
        assert not val[holders[0]].any()  # the only image of a class is for training


def test_every_class_gets_about_its_share(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes = [rng.choice(5, size=2, p=[0.6, 0.25, 0.1, 0.04, 0.01]).tolist() for _ in range(2000)]
    store = store_of(tmp_path, classes)
    val = split_images(store, 0.2, 7)
    for label in range(5):
        holders = images_with(store, label)
        assert val[holders].sum() == pytest.approx(0.2 * len(holders), abs=1.5), label
    assert (val != split_images(store, 0.2, 8)).any()


def test_images_without_objects_are_shared_out(tmp_path: Path) -> None:
    store = store_of(tmp_path, [[] for _ in range(100)])
    assert split_images(store, 0.3, 0).sum() == 30


def test_the_files_written_are_a_data_set(tmp_path: Path, draw: Any) -> None:
    content = content_of([[0], [0, 1], [1], [], [0]], neg_category_ids=[3], not_exhaustive_category_ids=[])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "train.json").write_text(json.dumps(content))
    for i in range(5):
        draw(tmp_path / "in" / f"{i}.jpg", (8, 8))
    keys = {"data": str(tmp_path / "in"), "output": str(tmp_path / "out"), "fraction": "0.4", "seed": "1"}
    result = data_split(keys, QUIET)
    source = open_source(load_config({"data": str(tmp_path / "out" / "data.yaml")}))
    train, val = source.open("train"), source.open("val")
    ids = [set(store.image_ids.tolist()) for store in (train, val)]
    assert ids[0] | ids[1] == {1, 2, 3, 4, 5} and not ids[0] & ids[1]
    assert [len(part) for part in ids] == [result["splits"][name]["images"] for name in ("train", "val")]
    assert sum(result["splits"][name]["instances"] for name in ("train", "val")) == 5
    assert train.federated and val.federated and val.neg_labels(0).tolist() == [3]
    assert train.categories.image_counts is not None and train.image_path(0).is_file()
    counted = [len(images_with(train, label)) for label in range(5)]
    assert train.categories.image_counts.tolist() == val.categories.image_counts.tolist() == counted
    with pytest.raises(ConfigError, match="is there already"):
        data_split(keys, QUIET)


def test_an_output_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(json.dumps(content_of([[0]])))
    with pytest.raises(ConfigError, match="output: not given"):
        data_split({"data": str(tmp_path)}, QUIET)
