"""k-means: groups that are there are found, none is empty, and the answer never changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.longtail.clustering import class_tables, grouping_parts, k_means
from aegl.longtail.losses.ahrl import Ahrl
from aegl.longtail.losses.softmax_ce import SoftmaxCE


def blobs(groups: int, each: int, dimensions: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around distant centres, shuffled, and which centre each is of."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.arange(groups).repeat_interleave(each)[torch.randperm(groups * each, generator=generator)]
    centres = 10 * torch.eye(groups, dimensions)
    return centres[centre] + 0.5 * torch.randn(groups * each, dimensions, generator=generator), centre


def same_partition(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a[:, None] == a, b[:, None] == b)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_groups_far_apart_are_found(metric: str) -> None:
    points, truth = blobs(6, 15, 8)
    assert same_partition(k_means(points, 6, metric=metric), truth)


def test_cosine_sees_directions_only() -> None:
    points, truth = blobs(4, 10, 5)
    lengths = torch.logspace(-2, 3, len(points))[
        torch.randperm(len(points), generator=torch.Generator().manual_seed(1))
    ]
    assert same_partition(k_means(points * lengths[:, None], 4, metric="cosine"), truth)
    assert not same_partition(k_means(points * lengths[:, None], 4), truth)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_every_group_has_a_member_and_numbers_rise(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 25))
    clusters = data.draw(st.integers(1, number))
    # Few values, so that many points are copies of each other, and zeros.
    rows = st.lists(st.integers(-1, 1), min_size=2, max_size=2)
    points = torch.tensor(data.draw(st.lists(rows, min_size=number, max_size=number)), dtype=torch.float32)
    metric = data.draw(st.sampled_from(["euclidean", "cosine"]))
    group = k_means(points, clusters, metric=metric)
    assert group.dtype == torch.int64
    assert sorted(set(group.tolist())) == list(range(clusters))
    first = [group.tolist().index(number) for number in range(clusters)]
    assert first == sorted(first)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 8))
def test_no_point_is_nearer_to_the_centre_of_another_group(seed: int, clusters: int) -> None:
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    group = k_means(points, clusters)
    centres = torch.stack([points[group == number].mean(0) for number in range(clusters)])
    assert torch.equal(torch.cdist(points, centres).argmin(1), group)


def test_the_same_groups_every_time_and_torchs_generator_is_left_alone() -> None:
    points = torch.randn(50, 4)
    torch.manual_seed(0)
    first = k_means(points, 7)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    torch.manual_seed(99)
    assert torch.equal(k_means(points, 7), first)
    assert torch.equal(k_means(points.bfloat16(), 7), k_means(points.bfloat16().double(), 7))


@pytest.mark.parametrize("clusters", [0, 6])
def test_more_groups_than_points_cannot_be(clusters: int) -> None:
    with pytest.raises(ValueError, match="5 vectors"):
        k_means(torch.zeros(5, 2), clusters)


def test_parts_that_group_classes_are_found_with_their_tables(stats: object) -> None:
    model = torch.nn.ModuleDict({"loss": Ahrl(stats), "other": SoftmaxCE(stats)})  # type: ignore[arg-type]
    assert [name for name, _ in grouping_parts(model)] == ["loss"]
    assert class_tables(model) == ["loss.cluster"]
    assert "loss.cluster" in model.state_dict()
