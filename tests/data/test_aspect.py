"""Grouping by shape: what the groups are, and that no image is lost, shown twice or moved without need."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.data.aspect import aspect_groups, grouped_order
from aegl.data.samplers import Draws, EpochSampler, Key, RepeatFactors, SamplingRule

NUM_IMAGES = 23
GROUPS = np.random.default_rng(1).integers(0, 3, NUM_IMAGES)


def repeated() -> RepeatFactors:
    factors = 1 + np.random.default_rng(0).exponential(0.7, NUM_IMAGES)
    return RepeatFactors(factors, np.zeros(0), np.zeros(0, dtype=np.int64))


def take(sampler: EpochSampler, batches: int, start: int = 0) -> list[list[Key]]:
    return list(itertools.islice(sampler.batches(start), batches))


def test_groups() -> None:
    sizes = [[100, 50], [100, 72], [100, 99], [100, 100], [99, 100], [72, 100], [50, 100]]
    assert aspect_groups(np.array(sizes)).tolist() == [0, 1, 1, 1, 2, 2, 3]
    assert aspect_groups(np.zeros((0, 2))).tolist() == []


def test_an_order_by_hand() -> None:
    groups = np.array([0, 1, 0, 1, 1, 0, 0, 1, 0])
    assert grouped_order(groups, 2).tolist() == [0, 2, 1, 3, 5, 6, 4, 7, 8]
    assert grouped_order(groups, 2, head=1).tolist() == [0, 1, 3, 2, 5, 4, 7, 6, 8]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 9), st.integers(0, 8))
def test_orders_are_permutations_whose_runs_are_pure(groups: list[int], size: int, head: int) -> None:
    order = grouped_order(np.array(groups, dtype=np.int64), size, head)
    assert sorted(order.tolist()) == list(range(len(groups)))
    assert order[:head].tolist() == list(range(min(head, len(groups))))
    ordered = [groups[k] for k in order[head:]]
    whole = sum(count // size for count in Counter(ordered).values())
    runs = [set(ordered[k * size : (k + 1) * size]) for k in range(whole)]
    assert all(len(run) == 1 for run in runs)


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 6), world=st.integers(1, 4), seed=st.integers(0, 3))
def test_one_group_changes_nothing(batch: int, world: int, seed: int) -> None:
    options = {"seed": seed, "rank": world - 1, "world_size": world}
    plain = EpochSampler(repeated(), batch, **options)
    one = EpochSampler(repeated(), batch, groups=aspect_groups(np.full((NUM_IMAGES, 2), 64)), **options)
    assert take(plain, 20) == take(one, 20)


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 9), world=st.integers(1, 5), start=st.integers(0, 40), seed=st.integers(0, 5))
def test_resuming_anywhere_continues_the_same_grouped_stream(batch: int, world: int, start: int, seed: int) -> None:
    sampler = EpochSampler(repeated(), batch, seed=seed, rank=world - 1, world_size=world, groups=GROUPS)
    assert take(sampler, 6, start) == take(sampler, start + 6)[start:]


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 6), world=st.integers(2, 4))
def test_processes_share_one_grouped_stream(batch: int, world: int) -> None:
    ranks = [
        take(EpochSampler(repeated(), batch, seed=4, rank=r, world_size=world, groups=GROUPS), 12) for r in range(world)
    ]
    alone = take(EpochSampler(repeated(), batch * world, seed=4, groups=GROUPS), 12)
    for step, whole in enumerate(alone):
        assert sorted(key for r in ranks for key in r[step]) == sorted(whole)


@pytest.mark.parametrize("rule", [repeated(), RepeatFactors.uniform(NUM_IMAGES)])
@pytest.mark.parametrize("batch", [1, 4, 7])
def test_epochs_hold_the_same_images_as_without_groups(rule: SamplingRule, batch: int) -> None:
    sampler = EpochSampler(rule, batch, seed=2, groups=GROUPS)
    keys = list(itertools.chain(*take(sampler, 200 // batch)))
    for epoch in range(3):
        here = [key for key in keys if key.epoch == epoch]
        assert [key.position for key in here] == list(range(len(here)))
        assert sorted(key.image for key in here) == sorted(sampler.draws(epoch).images.tolist())


def test_most_steps_are_of_one_group_on_all_processes() -> None:
    groups = np.random.default_rng(1).integers(0, 3, 400)
    samplers = [
        EpochSampler(RepeatFactors.uniform(400), 3, rank=rank, world_size=2, groups=groups) for rank in range(2)
    ]
    steps = zip(*(take(sampler, 200) for sampler in samplers), strict=True)
    kinds = [len({groups[key.image] for batch in step for key in batch}) for step in steps]
    assert sum(kind == 1 for kind in kinds) >= 200 - 3 * 4  # three epochs, with at most four mixed steps each


class EveryImageForAClass:
    """A rule that draws each image for the class of ten times its row."""

    classes = image_counts = np.zeros(0, dtype=np.int64)
    expected_repeats = np.ones(NUM_IMAGES)

    def draw(self, rng: np.random.Generator) -> Draws:
        images = rng.permutation(NUM_IMAGES)
        return Draws(images, 10 * images)


def test_the_class_an_image_was_drawn_for_moves_with_it() -> None:
    keys = list(itertools.chain(*take(EpochSampler(EveryImageForAClass(), 4, groups=GROUPS), 12)))
    assert all(key.focus == 10 * key.image for key in keys)
