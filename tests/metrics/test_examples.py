"""Images to look at, against a plain count of what was found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aegl.data.occurrence import images_per_class
from aegl.metrics import DetectionTable, GroundTruth
from aegl.metrics.examples import find_examples

Objects = dict[int, list[tuple[int, float]]]
"""By image: class and left edge of each object, a box of 10 x 10."""


@pytest.fixture
def of() -> Any:
    """Examples of objects and detections, both by image, the latter with scores that fall in their order."""

    def find(objects: Objects, detections: Objects, keep: int = 2, images: int = 4) -> dict[str, list[tuple[int, int]]]:
        rows = [(image, label, x) for image in range(images) for label, x in objects.get(image, [])]
        found = [(image, label, x) for image, each in detections.items() for label, x in each]
        none = np.zeros(0, dtype=np.int64)
        gt = GroundTruth(
            image_ids=np.arange(images) * 10, image_sizes=np.full((images, 2), 100), num_classes=3,
            ann_ids=np.arange(len(rows)), ann_image=np.array([r[0] for r in rows], dtype=np.int64),
            ann_labels=np.array([r[1] for r in rows], dtype=np.int64), ann_boxes_xywh=_boxes([r[2] for r in rows]),
            ann_areas=np.full(len(rows), 100.0), ann_crowd=np.zeros(len(rows), dtype=bool),
            ann_ignore=np.zeros(len(rows), dtype=bool), federated=False, negative=none, not_exhaustive=none,
            segmentation=lambda row: None,
        )  # fmt: skip
        table = DetectionTable(
            np.array([f[0] for f in found], dtype=np.int32), np.array([f[1] for f in found], dtype=np.int32),
            np.linspace(1, 0.5, len(found)), _boxes([f[2] for f in found]),
        )  # fmt: skip
        chosen = find_examples(gt, table, images_per_class(gt.ann_image, gt.ann_labels, 3), keep)
        return {kind: [(e.image, e.found) for e in examples] for kind, examples in chosen.items()}

    return find


def _boxes(left: list[float]) -> np.ndarray:
    return np.array([[x, 0, 10, 10] for x in left], dtype=np.float64).reshape(-1, 4)


def test_best_and_worst_by_the_share_found(of: Any) -> None:
    objects = {0: [(0, 0)], 1: [(0, 0), (1, 50)], 2: [(2, 0), (2, 50)], 3: [(0, 0)]}
    detections = {0: [(0, 1)], 1: [(0, 0), (1, 52)], 2: [(2, 0), (1, 50)], 3: [(1, 0)]}
    chosen = of(objects, detections)
    assert chosen["best"] == [(1, 2), (0, 1)]  # both whole; the one with more objects first
    assert chosen["worst"] == [(3, 0), (2, 1)]


def test_only_as_many_detections_as_objects_count(of: Any) -> None:
    objects = {0: [(0, 0)], 1: [(0, 0)]}
    chosen = of(objects, {0: [(1, 0), (0, 0)], 1: [(0, 0)]})
    assert chosen["best"] == [(1, 1)] and chosen["worst"] == [(0, 0)]


def test_images_without_objects_are_not_shown(of: Any) -> None:
    chosen = of({1: [(0, 0)]}, {0: [(0, 0)], 3: [(1, 1)]})
    assert chosen == {"best": [(1, 0)], "worst": [], "rarest": [(1, 0)]}


def test_the_rarest_classes_are_shown_whatever_was_found(of: Any) -> None:
    objects = {0: [(0, 0)], 1: [(0, 0), (1, 20)], 2: [(0, 0), (1, 20)], 3: [(2, 0), (1, 30)]}
    first = of(objects, {}, keep=3)["rarest"]
    assert [image for image, _ in first] == [3, 0, 1]  # class 2 is in one image, 0 and 1 are in three
    second = of(objects, {3: [(2, 0)]}, keep=3)["rarest"]
    assert [image for image, _ in second] == [3, 0, 1] and second[0] == (3, 1)
