"""Scores of true and false detections, against a plain count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aegl.metrics import evaluate
from aegl.metrics.score_counts import SCORE_EDGES, score_counts, scores_by_band

BAND = np.array([0, 1, 1, 0, 1])
NAMES = ("head", "tail")


def test_counts_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    label, score, matched = rng.integers(0, 4, 300), rng.random(300), rng.random(300) < 0.3
    score[:3] = [0.0, 1.0, 0.5]
    found = score_counts(label, score, matched, 4)
    for c in range(4):
        for true in (False, True):
            expected, _ = np.histogram(score[(label == c) & (matched == true)], bins=len(SCORE_EDGES) - 1, range=(0, 1))
            assert found[c, int(true)].sum() == expected.sum()
            assert np.abs(found[c, int(true)] - expected).sum() <= 2  # an edge may round to either side
    assert found.sum() == 300


@pytest.mark.parametrize("protocol", ["coco", "lvis", "lvis_pooled"])
def test_true_ones_are_what_recall_counts(
    protocol: str, make_dataset: Any, make_results: Any, store_of: Any, table_of: Any
) -> None:
    dataset = make_dataset(seed=11)
    store = store_of(dataset)
    result = evaluate(
        store, table_of(make_results(dataset, seed=12, strays=20), store), protocol=protocol, iou_type="bbox",
        class_band=BAND, band_names=NAMES,
    )  # fmt: skip
    recall, true = result.recall[0, :, 0, -1], result.scores[:, 1].sum(axis=1)
    with_objects = recall > 0
    objects = true[with_objects] / recall[with_objects]
    assert with_objects.any() and np.allclose(objects, objects.round())
    assert result.scores[:, 0].sum() > 0
    summed = scores_by_band(result.scores, BAND, NAMES)
    assert [sum(summed["per_band"][name]["true"]) for name in NAMES] == [true[BAND == 0].sum(), true[BAND == 1].sum()]
    assert len(summed["edges"]) == 51
