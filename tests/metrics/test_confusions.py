"""The list of the most frequent confusions."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.metrics import DetectionTable, GroundTruth
from aegl.metrics.confusions import Confusion, find_confusions

BOX = [10.0, 10.0, 40.0, 40.0]
NEAR = [12.0, 10.0, 40.0, 40.0]
FAR = [60.0, 60.0, 20.0, 20.0]


def _ground_truth(objects: list[tuple[int, int, list[float]]], crowd: tuple[int, ...] = ()) -> GroundTruth:
    """``(image, label, box)`` by image, two images, three classes."""
    count = len(objects)
    return GroundTruth(
        image_ids=np.array([7, 3]),
        image_sizes=np.full((2, 2), 100),
        num_classes=3,
        ann_ids=np.arange(count) + 1,
        ann_image=np.array([o[0] for o in objects], dtype=np.int64),
        ann_labels=np.array([o[1] for o in objects], dtype=np.int64),
        ann_boxes_xywh=np.array([o[2] for o in objects], dtype=np.float64).reshape(-1, 4),
        ann_areas=np.full(count, 1600.0),
        ann_crowd=np.isin(np.arange(count), crowd),
        ann_ignore=np.zeros(count, dtype=bool),
        federated=False,
        negative=np.zeros(0, dtype=np.int64),
        not_exhaustive=np.zeros(0, dtype=np.int64),
        segmentation=lambda _: None,
    )


def _table(detections: list[tuple[int, int, float, list[float]]]) -> DetectionTable:
    """``(image, label, score, box)``."""
    return DetectionTable(
        np.array([d[0] for d in detections], dtype=np.int32),
        np.array([d[1] for d in detections], dtype=np.int32),
        np.array([d[2] for d in detections], dtype=np.float64),
        np.array([d[3] for d in detections], dtype=np.float64).reshape(-1, 4),
    )


@pytest.mark.parametrize(
    ("objects", "detections", "expected"),
    [
        pytest.param([(0, 0, BOX)], [(0, 1, 0.8, NEAR)], [(0, 1, 1, 0.8)], id="taken for another class"),
        pytest.param([(0, 0, BOX)], [(0, 1, 0.8, FAR)], [], id="another place"),
        pytest.param([(0, 0, BOX)], [(1, 1, 0.8, BOX)], [], id="another image"),
        pytest.param([(0, 0, BOX)], [(0, 1, 0.8, NEAR), (0, 0, 0.9, BOX)], [], id="its own class is surer"),
        pytest.param([(0, 0, BOX)], [(0, 1, 0.8, NEAR), (0, 0, 0.1, BOX)], [(0, 1, 1, 0.8)], id="the other is surer"),
        pytest.param([(0, 0, BOX)], [(0, 1, 0.8, NEAR), (0, 0, 0.8, BOX)], [], id="as sure"),
        pytest.param(
            [(0, 0, BOX)], [(0, 1, 0.8, NEAR), (0, 2, 0.9, BOX), (0, 1, 0.7, BOX)], [(0, 2, 1, 0.9)], id="best score"
        ),
        pytest.param([(0, 0, BOX)], [(0, 2, 0.8, BOX), (0, 1, 0.8, BOX)], [(0, 2, 1, 0.8)], id="first of equals"),
        pytest.param(
            [(0, 0, BOX), (0, 1, NEAR)], [(0, 1, 0.8, BOX)], [], id="a detection that is right for its neighbour"
        ),
        pytest.param(
            [(0, 0, BOX), (1, 0, BOX), (1, 2, FAR)],
            [(1, 1, 0.6, BOX), (0, 1, 0.8, BOX), (1, 0, 0.9, FAR)],
            [(0, 1, 2, 0.7), (2, 0, 1, 0.9)],
            id="most frequent first, score of the mean",
        ),
        pytest.param([], [(0, 1, 0.8, BOX)], [], id="no objects"),
        pytest.param([(0, 0, BOX)], [], [], id="no detections"),
    ],
)
def test_what_counts_as_a_confusion(objects: Any, detections: Any, expected: Any) -> None:
    found = find_confusions(_ground_truth(objects), _table(detections), 10)
    assert [(c.label, c.predicted, c.count, pytest.approx(c.mean_score)) for c in found] == expected


def test_crowds_are_left_out() -> None:
    assert find_confusions(_ground_truth([(0, 0, BOX)], crowd=(0,)), _table([(0, 1, 0.8, BOX)]), 10) == []


@pytest.mark.parametrize(("keep", "length"), [(0, 0), (1, 1), (5, 2)])
def test_only_the_most_frequent_are_kept(keep: int, length: int) -> None:
    objects = [(0, 0, BOX), (0, 2, FAR)]
    found = find_confusions(_ground_truth(objects), _table([(0, 1, 0.3, BOX), (0, 1, 0.6, FAR)]), keep)
    assert found == [Confusion(2, 1, 1, 0.6), Confusion(0, 1, 1, 0.3)][:length]


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    overlap = float(np.prod(np.maximum(high - low, 0)))
    return overlap / (float(np.prod(a[2:]) + np.prod(b[2:])) - overlap)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), block=st.sampled_from([1, 30, 1 << 17]))
def test_equals_a_search_object_by_object_in_blocks_of_any_size(
    seed: int, block: int, make_dataset: Any, make_results: Any, store_of: Any, table_of: Any
) -> None:
    dataset = make_dataset(seed, 5, 4)
    rng = np.random.default_rng(seed)
    results = make_results(dataset, seed + 1, masks=False)
    for result in results:
        result["category_id"] = 10 * int(rng.integers(1, 5))  # plenty of wrong classes
    for annotation in dataset["annotations"]:
        annotation["iscrowd"] = 0
    store = store_of(dataset)
    gt, table = GroundTruth.from_store(store), table_of(results, store)
    scores = defaultdict(list)
    for a in range(len(gt.ann_ids)):
        near = [
            d
            for d in range(len(table))
            if table.image_index[d] == gt.ann_image[a] and _iou(table.boxes_xywh_orig[d], gt.ann_boxes_xywh[a]) >= 0.5
        ]
        near.sort(key=lambda d: -table.score[d])
        own = max((table.score[d] for d in near if table.label[d] == gt.ann_labels[a]), default=-1)
        if gt.ann_ignore[a]:
            continue
        for d in (d for d in near if table.score[d] > own):
            same = (gt.ann_image == table.image_index[d]) & (gt.ann_labels == table.label[d])
            if not any(_iou(table.boxes_xywh_orig[d], box) >= 0.5 for box in gt.ann_boxes_xywh[same]):
                scores[int(gt.ann_labels[a]), int(table.label[d])].append(table.score[d])
                break
    expected = {pair: (len(s), pytest.approx(np.mean(s))) for pair, s in scores.items()}
    with mock.patch("aegl.metrics.confusions._BLOCK", block):
        found = find_confusions(gt, table, 100)
    assert {(c.label, c.predicted): (c.count, c.mean_score) for c in found} == expected
