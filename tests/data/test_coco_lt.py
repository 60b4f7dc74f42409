"""COCO-LT: the published bins by a seeded draw, or the images of a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.config import load_config
from aegl.data import coco_lt
from aegl.data.build import build_store
from aegl.data.coco_lt import BINS, NUM_CLASSES, draw, targets
from aegl.data.store import AnnotationStore
from aegl.data_tasks import data_coco_lt, open_source
from aegl.errors import ConfigError, DataError
from aegl.progress import SilentProgress

QUIET = SilentProgress()


@given(counts=st.lists(st.integers(0, 300_000), min_size=NUM_CLASSES, max_size=NUM_CLASSES))
@settings(max_examples=100, deadline=None)
def test_no_class_gets_more_than_it_has_and_frequent_ones_keep_all(counts: list[int]) -> None:
    there = np.array(counts)
    wanted = targets(there)
    assert (wanted <= there).all() and ((wanted > 0) == (there > 0)).all()
    order = np.argsort(there, kind="stable")
    np.testing.assert_array_equal(wanted[order[-20:]], there[order[-20:]])


def test_counts_like_those_of_coco_fall_into_the_published_bins() -> None:
    there = np.random.default_rng(0).permutation(np.geomspace(8200, 262_000, NUM_CLASSES).astype(int))
    wanted = targets(there)
    assert np.bincount(np.digitize(wanted, [1, 20, 400, 8000]), minlength=5).tolist() == [0, 4, 24, 32, 20]
    assert (np.diff(wanted[np.argsort(there)]) >= 0).all()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AnnotationStore:
    """80 classes of 30 to 109 instances, three an image, with bins to match."""
    monkeypatch.setattr(coco_lt, "BINS", ((4, 1, 4), (24, 5, 15), (32, 16, 25)))
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(NUM_CLASSES), np.arange(30, 110)))
    box = {"bbox": [0, 0, 4, 4], "area": 16, "segmentation": [[0, 0, 4, 0, 4, 4]]}
    content = {
        "images": [{"id": 7 * i, "height": 8, "width": 8, "file_name": f"{7 * i:012d}.jpg"}
                   for i in range(-(-len(labels) // 3))],
        "annotations": [{"id": k + 1, "image_id": 7 * (k // 3), "category_id": int(c) + 1, "iscrowd": 0, **box}
                        for k, c in enumerate(labels)],
        "categories": [{"id": c + 1, "name": str(c)} for c in range(NUM_CLASSES)],
    }  # fmt: skip
    content["annotations"].append({"id": 99_999, "image_id": 0, "category_id": 1, "iscrowd": 1, **box})
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return build_store(tmp_path / "coco.json", cache_dir=tmp_path / "cache")


def written(result: dict[str, Any]) -> AnnotationStore:
    return open_source(load_config({"data": result["file"]})).open("train")


def test_the_draw_has_the_wanted_number_of_every_class(small: AnnotationStore, tmp_path: Path) -> None:
    result = data_coco_lt({"data": str(small.source), "output": str(tmp_path / "out")}, QUIET)
    store = written(result)
    single = ~np.asarray(store.ann_crowd)
    counts = np.bincount(store.ann_labels[single], minlength=NUM_CLASSES)
    np.testing.assert_array_equal(counts, targets(np.arange(30, 110)))
    assert result["file"] == str(tmp_path / "out" / "coco_lt_train.json")
    assert (result["images"], result["instances"]) == (len(store), int(single.sum()))
    assert sum(result["bins"].values()) == NUM_CLASSES
    assert "a seeded draw" in result["relation"] and "not the authors' sample" in result["relation"]
    assert not store.images_without_objects().any()
    before = set(zip(small.ann_ids.tolist(), map(tuple, small.ann_boxes_xywh.tolist()), strict=True))
    assert set(zip(store.ann_ids.tolist(), map(tuple, store.ann_boxes_xywh.tolist()), strict=True)) <= before


def test_crowds_stay_where_their_image_does(small: AnnotationStore) -> None:
    kept = draw(small, 0)
    assert kept[np.asarray(small.ann_crowd)].all()


def test_the_draw_follows_the_seed(small: AnnotationStore) -> None:
    np.testing.assert_array_equal(draw(small, 3), draw(small, 3))
    assert (draw(small, 3) != draw(small, 4)).any()


@pytest.mark.parametrize("form", ["{}", "{:012d}.jpg", "train2017/{:012d}.jpg"])
def test_a_list_names_the_images(form: str, small: AnnotationStore, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n".join(form.format(key) for key in (14, 0, 70)))
    keys = {"data": str(small.source), "output": str(tmp_path / "out"), "images": str(tmp_path / "list.txt")}
    result = data_coco_lt(keys, QUIET)
    store = written(result)
    assert store.image_ids.tolist() == [0, 14, 70] and store.num_annotations == 10  # with the crowd
    assert result["instances"] == 9 and "those of the list" in result["relation"]


@pytest.mark.parametrize(("text", "message"), [("14\n15\n", "1 of 2 are not in .*: 15;"), ("\n", "names no image")])
def test_a_list_that_does_not_fit(text: str, message: str, small: AnnotationStore, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(text)
    keys = {"data": str(small.source), "output": str(tmp_path / "out"), "images": str(tmp_path / "list.txt")}
    with pytest.raises(DataError, match=message):
        data_coco_lt(keys, QUIET)
    with pytest.raises(DataError, match="cannot be read"):
        data_coco_lt({**keys, "images": str(tmp_path / "none.txt")}, QUIET)
    assert not (tmp_path / "out").exists()


def test_the_file_goes_where_the_shipped_data_set_looks_for_it(
    small: AnnotationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"data": str(small.source), "data_dir": str(tmp_path / "sets")}
    result = data_coco_lt(keys, QUIET)
    shipped = open_source(load_config({"data": "coco_lt", "data_dir": str(tmp_path / "sets")}))
    assert str(shipped.files["train"]) == result["file"]
    assert len(shipped.open("train")) == result["images"]
    with pytest.raises(ConfigError, match=r"holds a coco_lt_train\.json already"):
        data_coco_lt(keys, QUIET)


def test_other_data_is_refused(content: dict[str, Any], write: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 3 classes; COCO-LT is made from COCO's 80"):
        data_coco_lt({"data": str(write(content)), "output": str(tmp_path / "out")}, QUIET)


def test_the_bins_are_those_of_the_shipped_bands() -> None:
    assert [most for _, _, most in BINS] == load_config({"data": "coco_lt"}).bands.edges
