"""A small annotation file with something of everything, to be read, broken and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aegl.data.build import build_store
from aegl.data.store import AnnotationStore

Content = dict[str, Any]


@pytest.fixture
def content() -> Content:
    """Three images, one of them empty; annotations out of order; polygons, both kinds of RLE, a crowd, no mask."""
    categories = [
        {"id": 30, "name": "emu", "frequency": "f", "image_count": 1, "instance_count": 1},
        {"id": 10, "name": "ant", "frequency": "r", "image_count": 2, "instance_count": 3},
        {"id": 20, "name": "bee", "frequency": "c", "image_count": 0, "instance_count": 0},
    ]
    images = [
        {"id": 5, "height": 10, "width": 20, "file_name": "five.jpg", "neg_category_ids": [20, 30]},
        {"id": 2, "height": 8, "width": 6, "file_name": "two.jpg", "not_exhaustive_category_ids": [10]},
        {"id": 9, "height": 4, "width": 4, "file_name": "nine.jpg", "neg_category_ids": []},
    ]
    annotations = [
        {"id": 101, "image_id": 2, "category_id": 10, "bbox": [1.25, 2.5, 3, 4.125], "area": 7.75, "iscrowd": 0,
         "segmentation": [[1.25, 2.5, 4.25, 2.5, 4.25, 6.625], [1, 2, 3, 2, 3, 4, 1, 4]]},
        {"id": 103, "image_id": 5, "category_id": 10, "bbox": [0, 0, 20, 10], "area": 150, "iscrowd": 1,
         "segmentation": {"size": [10, 20], "counts": [30, 150, 20]}},
        {"id": 102, "image_id": 2, "category_id": 30, "bbox": [0, 0, 6, 8], "area": 20,
         "segmentation": {"size": [8, 6], "counts": "8d0d0"}},
        {"id": 104, "image_id": 5, "category_id": 10, "bbox": [3, 4, 5, 6], "ignore": 1},
    ]  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a content as JSON below the test's folder."""

    def write_json(content: Any, name: str = "data.json") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return write_json


@pytest.fixture
def store_of(write: Callable[..., Path], tmp_path: Path) -> Callable[..., AnnotationStore]:
    """Builds the store of a content."""
    return lambda content, **given: build_store(write(content), cache_dir=tmp_path / "cache", **given)


@pytest.fixture
def draw() -> Callable[[Path, tuple[int, int]], Path]:
    """Writes an image of (width, height) pixels."""

    def write_image(path: Path, size: tuple[int, int]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 50).convert("RGB").save(path)
        return path

    return write_image
