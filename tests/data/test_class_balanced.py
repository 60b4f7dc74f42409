"""Class-balanced draws: every class equally often, each of its images too, and one stream for all processes."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.data.class_balanced import ClassBalanced, class_balanced
from aegl.data.samplers import EpochSampler, Key

NUM_CLASSES = 5
HELD = [[0], [0, 0, 1], [1, 2], [], [2], [2, 0], [2, 2], [2]]
"""Classes of the objects of each image; two classes have none."""

held_classes = st.lists(st.lists(st.integers(0, NUM_CLASSES - 1), max_size=4), min_size=1, max_size=12).filter(any)


def rule_of(held: list[list[int]], length: int, crowds: tuple[int, ...] = ()) -> ClassBalanced:
    """The rule for images that hold objects of these classes; ``crowds`` are annotations that are none."""
    labels = np.array([label for own in held for label in own], dtype=np.int32)
    store = SimpleNamespace(
        image_ids=np.arange(len(held)),
        ann_offsets=np.cumsum([0, *map(len, held)]),
        ann_labels=labels,
        ann_crowd=np.isin(np.arange(len(labels)), crowds),
    )
    return class_balanced(store, NUM_CLASSES, length)  # type: ignore[arg-type]


def take(sampler: EpochSampler, batches: int, start: int = 0) -> list[list[Key]]:
    return list(itertools.islice(sampler.batches(start), batches))


@settings(max_examples=60, deadline=None)
@given(held=held_classes, length=st.integers(1, 50), seed=st.integers(0, 5))
def test_every_image_holds_the_class_it_was_drawn_for(held: list[list[int]], length: int, seed: int) -> None:
    rule = rule_of(held, length)
    images, focus = rule.draw(np.random.default_rng(seed))
    assert len(images) == len(focus) == length
    assert all(label in held[image] for image, label in zip(images.tolist(), focus.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(held=held_classes, length=st.integers(1, 50))
def test_expected_repeats_are_what_follows_from_the_definition(held: list[list[int]], length: int) -> None:
    rule = rule_of(held, length)
    holders = [[image for image, own in enumerate(held) if label in own] for label in range(NUM_CLASSES)]
    share = length / sum(map(bool, holders))
    expected = [sum(share / len(own) for own in holders if image in own) for image in range(len(held))]
    assert rule.expected_repeats == pytest.approx(expected)
    assert rule.image_counts.tolist() == list(map(len, holders))
    assert rule.classes == pytest.approx([share / len(own) if own else 0 for own in holders])
    assert EpochSampler(rule, 1).epoch_length == pytest.approx(length)


def test_classes_and_their_images_are_drawn_equally_often() -> None:
    length = 60_000
    images, focus = rule_of(HELD, length).draw(np.random.default_rng(0))
    for label, own in {0: [0, 1, 5], 1: [1, 2], 2: [2, 4, 5, 6, 7]}.items():
        drawn = images[focus == label]
        assert len(drawn) / length == pytest.approx(1 / 3, abs=0.01)
        shares = np.bincount(drawn, minlength=len(HELD)) / len(drawn)
        assert shares[own] == pytest.approx(1 / len(own), abs=0.015) and shares.sum() == pytest.approx(
            shares[own].sum()
        )
    assert not np.isin(images, [3]).any() and set(focus.tolist()) == {0, 1, 2}


def test_crowds_do_not_make_an_image_hold_a_class() -> None:
    rule = rule_of([[0, 1], [1], [0]], 200, crowds=(0, 2))
    assert rule.image_counts.tolist() == [1, 1, 0, 0, 0]
    images, focus = rule.draw(np.random.default_rng(0))
    assert set(zip(images.tolist(), focus.tolist(), strict=True)) == {(0, 1), (2, 0)}


def test_epochs_are_pure_and_differ() -> None:
    sampler = EpochSampler(rule_of(HELD, 40), 4, seed=1)
    first = sampler.draws(5)
    for again, same in [
        (sampler.draws(5), True),
        (sampler.draws(6), False),
        (EpochSampler(sampler.rule, 4).draws(5), False),
    ]:
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True)) == same


def test_the_stream_is_the_epochs_one_after_the_other_with_what_each_image_was_drawn_for() -> None:
    sampler = EpochSampler(rule_of(HELD, 17), 5, seed=9)
    keys = [key for batch in take(sampler, 12) for key in batch]
    epochs = ((epoch, sampler.draws(epoch)) for epoch in range(4))
    expected = [
        (e, p, i, c)
        for e, draws in epochs
        for p, (i, c) in enumerate(zip(draws.images.tolist(), draws.focus.tolist(), strict=True))
    ]
    assert keys == expected[: len(keys)]


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 9), world=st.integers(1, 5), start=st.integers(0, 40), seed=st.integers(0, 5))
def test_resuming_anywhere_continues_the_same_stream(batch: int, world: int, start: int, seed: int) -> None:
    sampler = EpochSampler(rule_of(HELD, 17), batch, seed=seed, rank=world - 1, world_size=world)
    assert take(sampler, 6, start) == take(sampler, start + 6)[start:]


@settings(max_examples=40, deadline=None)
@given(held=held_classes, batch=st.integers(1, 6), world=st.integers(2, 4))
def test_processes_share_one_stream_without_loss_or_double(held: list[list[int]], batch: int, world: int) -> None:
    rule = rule_of(held, 13)
    ranks = [take(EpochSampler(rule, batch, seed=4, rank=r, world_size=world), 12) for r in range(world)]
    alone = take(EpochSampler(rule, batch * world, seed=4), 12)
    for step, whole in enumerate(alone):
        assert sorted(key for r in ranks for key in r[step]) == sorted(whole)


def test_data_without_objects_is_refused() -> None:
    with pytest.raises(ValueError, match="no image to sample"):
        take(EpochSampler(rule_of([[], []], 3), 2), 1)
