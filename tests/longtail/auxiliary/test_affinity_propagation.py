"""Affinity propagation: clusters that are plain to see, the best ones of few points, and what has no answer."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aegl.longtail.auxiliary._affinity_propagation import affinity_propagation


def similarity(points: Tensor) -> Tensor:
    return -torch.cdist(points, points).square()


def partition(clusters: Tensor) -> set[frozenset[int]]:
    return {frozenset((clusters == c).nonzero().squeeze(1).tolist()) for c in clusters.unique().tolist()}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 6), min_size=2, max_size=5), st.integers(0, 1000))
def test_well_separated_blobs_are_found(sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    centres = 50 * torch.eye(len(sizes), 6, dtype=torch.float64)
    truth = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    points = centres[truth] + 0.5 * torch.randn(len(truth), 6, dtype=torch.float64)
    found = affinity_propagation(similarity(points))
    # Blobs may be split, where the median similarity lies within one, but never mixed.
    assert all(len({int(truth[i]) for i in cluster}) == 1 for cluster in partition(found))
    assert sorted(found.unique().tolist()) == list(range(int(found.max()) + 1))


def test_equal_blobs_are_found_whole() -> None:
    torch.manual_seed(0)
    truth = torch.arange(4).repeat_interleave(8)
    points = 20 * torch.eye(4, 5, dtype=torch.float64)[truth] + torch.randn(32, 5, dtype=torch.float64)
    assert partition(affinity_propagation(similarity(points))) == partition(truth)


def net_similarity(matrix: np.ndarray, exemplars: tuple[int, ...], preference: float) -> float:
    others = [i for i in range(len(matrix)) if i not in exemplars]
    return preference * len(exemplars) + sum(max(matrix[i, e] for e in exemplars) for i in others)


@pytest.mark.parametrize("seed", range(8))
def test_the_best_exemplars_of_few_points_are_found(seed: int) -> None:
    torch.manual_seed(seed)
    points = 6 * torch.randn(3, 2, dtype=torch.float64).repeat(3, 1) + torch.randn(9, 2, dtype=torch.float64)
    matrix = similarity(points).numpy()
    preference = float(torch.as_tensor(matrix)[~torch.eye(9, dtype=torch.bool)].median())
    best = max(
        (chosen for size in range(1, 10) for chosen in combinations(range(9), size)),
        key=lambda chosen: net_similarity(matrix, chosen, preference),
    )
    found = partition(affinity_propagation(torch.as_tensor(matrix), damping=0.8, rounds=1000))
    # The value of a clustering: each cluster around its best member.
    value = sum(preference + max(matrix[list(c - {e}), e].sum() for e in c) for c in found)
    assert value >= net_similarity(matrix, best, preference) - 1e-6 * abs(matrix.min())


def test_the_same_input_gives_the_same_clusters_and_draws_nothing() -> None:
    points = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    first = affinity_propagation(similarity(points))
    state = torch.get_rng_state()
    assert torch.equal(affinity_propagation(similarity(points)), first)
    assert torch.equal(torch.get_rng_state(), state)


@settings(max_examples=20, deadline=None)
@given(st.permutations(list(range(12))))
def test_the_order_of_points_does_not_matter(order: list[int]) -> None:
    torch.manual_seed(0)
    truth = torch.arange(3).repeat_interleave(4)
    points = 20 * torch.eye(3, 3, dtype=torch.float64)[truth] + torch.randn(12, 3, dtype=torch.float64)
    direct = affinity_propagation(similarity(points))
    moved = affinity_propagation(similarity(points[order]))
    assert partition(direct) == {frozenset(order[i] for i in cluster) for cluster in partition(moved)}


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_few_or_equal_points(count: int) -> None:
    found = affinity_propagation(torch.zeros(count, count))
    assert found.shape == (count,) and found.dtype == torch.int64
    assert count == 0 or (found.min() == 0 and found.max() < count)
