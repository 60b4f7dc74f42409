"""Mean masks and parents of classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegl.data import class_descriptions
from aegl.data.class_descriptions import mean_masks, parents
from aegl.data.masks import rasterize_in_box
from aegl.errors import ConfigError

LEFT = [[0, 0, 10, 0, 10, 20, 0, 20]]
"""The left half of a box of side 20 at the origin."""


def content_of(labels: list[int], polygons: list[Any], **category: Any) -> dict[str, Any]:
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": label + 1, "bbox": [0, 0, 20, 20], "segmentation": polygon}
        for i, (label, polygon) in enumerate(zip(labels, polygons, strict=True))
    ]
    names = ["ant", "bee", "cat"]
    return {
        "images": [{"id": 1, "height": 20, "width": 20, "file_name": "a.jpg"}],
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name, **category} for i, name in enumerate(names)],
    }


def test_a_mean_is_of_the_masks_over_their_boxes(store_of: Any) -> None:
    whole = [[0, 0, 20, 0, 20, 20, 0, 20]]
    masks = mean_masks(store_of(content_of([0, 0, 1], [LEFT, whole, LEFT]))).reshape(3, 28, 28)
    assert masks.dtype == np.float32
    np.testing.assert_array_equal(masks[0, :, :14], 1)
    np.testing.assert_array_equal(masks[0, :, 14:], 0.5)
    np.testing.assert_array_equal(masks[1, :, 14:], 0)
    # No object: the mean of the others.
    np.testing.assert_allclose(masks[2], masks[:2].mean(0))


def test_crowds_and_objects_without_a_mask_are_left_out(store_of: Any, content: dict[str, Any]) -> None:
    store = store_of(content)
    masks = mean_masks(store).reshape(3, 28, 28)
    assert masks.shape == (3, 28, 28)
    row = int(np.flatnonzero(store.ann_ids == 101)[0])
    box = store.ann_boxes_xywh[row] + np.array([0, 0, *store.ann_boxes_xywh[row][:2]])
    np.testing.assert_array_equal(
        masks[0], rasterize_in_box(store.segmentation(row), box.clip(0, [6, 8, 6, 8]), 28, [8, 6])
    )


def test_of_many_objects_a_sample_spread_over_the_file(store_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    original = class_descriptions.rasterize_in_box
    monkeypatch.setattr(
        class_descriptions, "rasterize_in_box", lambda s, *rest: seen.append(s[0][0, 0]) or original(s, *rest)
    )
    polygons = [[[i / 100, 0, 10, 0, 10, 20, 0, 20]] for i in range(430)]
    mean_masks(store_of(content_of([0] * 220 + [1] * 10 + [0] * 200, polygons)))
    numbers = np.array([round(100 * x) for x in seen])
    few = (numbers >= 220) & (numbers < 230)
    assert few.sum() == 10 and (~few).sum() == 50
    gaps = np.diff(numbers[~few])
    assert gaps.max() <= 2 * 420 / 50 + 10 and numbers[0] < 9 and numbers[-1] > 420


def test_a_file_without_objects_has_means_of_nothing(store_of: Any) -> None:
    assert not mean_masks(store_of(content_of([], []))).any()


def test_supercategories_are_parents(store_of: Any, content: dict[str, Any]) -> None:
    for record, kind in zip(content["categories"], ["bird", "insect", "insect"], strict=True):
        record["supercategory"] = kind
    categories = store_of(content).categories
    assert categories.supercategories == ("insect", "insect", "bird")
    assert parents(categories.names, categories.supercategories, None).tolist() == [0, 0, 1]


def test_a_file_of_parents_goes_before_supercategories(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"bee": "x", "ant": "y", "cat": "x", "unused": "z"}))
    found = parents(("ant", "bee", "cat"), ("a", "a", "a"), str(tmp_path / "p.json"))
    assert found.dtype == np.int64 and found.tolist() == [0, 1, 1]


def test_without_parents_there_is_advice(store_of: Any, content: dict[str, Any]) -> None:
    content["categories"][0]["supercategory"] = "bird"  # not every class has one
    categories = store_of(content).categories
    with pytest.raises(ConfigError, match=r"class_parents: not given, .* \{class name: parent name\}"):
        parents(categories.names, categories.supercategories, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"p\.json: is not JSON"),
        ("[1]", r"p\.json: must hold an object"),
        ('{"ant": 3}', r"p\.json: must hold an object"),
        ('{"bee": "x"}', r"p\.json: no parent for ant, cat$"),
        (None, r"p\.json: cannot be read"),
    ],
)
def test_bad_files_of_parents_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "p.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        parents(("ant", "bee", "cat"), None, str(path))
