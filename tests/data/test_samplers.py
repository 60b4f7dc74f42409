"""Repeat factors against the golden vector, and the stream of images."""

import itertools
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.data.samplers import (
    EpochSampler,
    Key,
    RepeatFactors,
    Rounding,
    repeat_factors,
    repeat_factors_from_labels,
    round_factors,
)


@pytest.fixture(scope="module")
def rfs(oracles) -> dict[str, np.ndarray]:
    with np.load(oracles / "rfs.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def golden(rfs) -> RepeatFactors:
    images, labels = rfs["image_category"].T
    return repeat_factors_from_labels(images, labels, int(rfs["num_images"]), 30, float(rfs["threshold"]))


def varied(num_images: int = 23, seed: int = 0, rounding: Rounding = "stochastic") -> RepeatFactors:
    factors = 1 + np.random.default_rng(seed).exponential(0.7, num_images)
    return RepeatFactors(factors, np.zeros(0), np.zeros(0, dtype=np.int64), rounding)


def take(sampler: EpochSampler, batches: int, start: int = 0) -> list[list[Key]]:
    return list(itertools.islice(sampler.batches(start), batches))


def test_golden_factors(rfs, golden: RepeatFactors) -> None:
    assert golden.image_counts.tolist() == rfs["category_image_count"].tolist()
    assert golden.classes == pytest.approx(rfs["category_repeat"], rel=1e-12)
    assert golden.images == pytest.approx(rfs["repeat_factor"], rel=1e-6)


def test_golden_factors_with_power_one(rfs) -> None:
    images, labels = rfs["image_category"].T
    got = repeat_factors_from_labels(images, labels, int(rfs["num_images"]), 30, float(rfs["threshold"]), power=1.0)
    assert got.images == pytest.approx(rfs["repeat_factor_nosqrt"], rel=1e-6)


@pytest.mark.parametrize(("rounding", "key"), [("stochastic", "epoch_indices"), ("ceil", "ceil_indices")])
def test_golden_epochs(rfs, golden: RepeatFactors, rounding, key) -> None:
    repeats = round_factors(golden.images, rounding, rfs["rounding_uniforms"])
    assert np.repeat(np.arange(len(repeats)), repeats).tolist() == rfs[key].tolist()


def test_repeated_annotations_of_a_class_in_an_image_count_once() -> None:
    once = repeat_factors_from_labels(np.array([0, 1]), np.array([0, 1]), 10, 2, 0.5)
    often = repeat_factors_from_labels(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 1]), 10, 2, 0.5)
    assert often.images.tolist() == once.images.tolist()
    assert once.images == pytest.approx([5**0.5] * 2 + [1.0] * 8)


def test_crowds_do_not_count() -> None:
    store = SimpleNamespace(
        image_ids=np.array([7, 8, 9, 10]),
        ann_offsets=np.array([0, 1, 3, 3, 3]),
        ann_labels=np.array([0, 0, 1]),
        ann_crowd=np.array([False, True, False]),
    )
    factors = repeat_factors(store, 2, threshold=1.0)
    assert factors.image_counts.tolist() == [1, 1]
    assert factors.images.tolist() == [2.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize("rounding", ["stochastic", "ceil"])
def test_epochs_hold_each_image_as_often_as_its_factor_says(rounding) -> None:
    factors = varied(rounding=rounding)
    sampler = EpochSampler(factors, 4, seed=3)
    counts = np.array([np.bincount(sampler.draws(e).images, minlength=23) for e in range(300)])
    exact = np.ceil(factors.images) if rounding == "ceil" else factors.images
    assert (counts >= np.floor(exact)).all() and (counts <= np.ceil(exact)).all()
    assert counts.mean(axis=0) == pytest.approx(exact, abs=0.12)
    assert sampler.epoch_length == pytest.approx(exact.sum())


def test_epochs_are_pure_and_differ() -> None:
    sampler = EpochSampler(RepeatFactors.uniform(50), 4, seed=1)
    first = sampler.draws(5).images
    assert sorted(first.tolist()) == list(range(50))
    assert np.array_equal(first, sampler.draws(5).images)
    assert not np.array_equal(first, sampler.draws(6).images)
    assert not np.array_equal(first, EpochSampler(RepeatFactors.uniform(50), 4, seed=2).draws(5).images)


def test_an_image_of_factor_zero_is_left_out() -> None:
    factors = RepeatFactors(np.array([1.0, 0.0, 2.0]), np.zeros(0), np.zeros(0, dtype=np.int64))
    assert sorted(EpochSampler(factors, 1).draws(0).images.tolist()) == [0, 2, 2]


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 9), world=st.integers(1, 5), start=st.integers(0, 40), seed=st.integers(0, 5))
def test_resuming_anywhere_continues_the_same_stream(batch: int, world: int, start: int, seed: int) -> None:
    sampler = EpochSampler(varied(), batch, seed=seed, rank=world - 1, world_size=world)
    assert take(sampler, 6, start) == take(sampler, start + 6)[start:]


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 6), world=st.integers(2, 4))
def test_processes_share_one_stream_without_loss_or_double(batch: int, world: int) -> None:
    ranks = [take(EpochSampler(varied(), batch, seed=4, rank=r, world_size=world), 12) for r in range(world)]
    alone = take(EpochSampler(varied(), batch * world, seed=4), 12)
    for step, whole in enumerate(alone):
        assert sorted(key for r in ranks for key in r[step]) == sorted(whole)


def test_stream_is_the_epochs_one_after_the_other() -> None:
    sampler = EpochSampler(varied(), 5, seed=9)
    keys = [key for batch in take(sampler, 30) for key in batch]
    expected = [(e, p, int(i), -1) for e in range(6) for p, i in enumerate(sampler.draws(e).images)]
    assert keys == expected[: len(keys)]


def test_state_counts_epochs() -> None:
    sampler = EpochSampler(RepeatFactors.uniform(10), 3, world_size=2)
    assert [sampler.state(k) for k in (0, 1, 2, 5)] == [(0, 0), (0, 6), (1, 2), (3, 0)]


def test_description(golden: RepeatFactors, caplog: pytest.LogCaptureFixture) -> None:
    sampler = EpochSampler(replace(golden, rounding="ceil"), 4)
    facts = sampler.describe()
    present = golden.image_counts[golden.image_counts > 0]
    assert facts["images"] == 400 and facts["epoch_length"] == 441
    assert facts["factor_rarest"] == golden.classes[golden.image_counts == present.min()][0]
    assert 1.0 <= facts["factor_median"] < facts["factor_rarest"]
    with caplog.at_level(logging.DEBUG, logger="aegl"):
        take(sampler, 112)  # into the second epoch
    told = [(record.levelname, record.getMessage().split(",")[0]) for record in caplog.records]
    assert told == [("INFO", "epoch 0: 441 images"), ("DEBUG", "epoch 1: 441 images")]


def test_description_without_repeats() -> None:
    facts = EpochSampler(RepeatFactors.uniform(7), 2).describe()
    assert facts == {"images": 7, "epoch_length": 7, "factor_rarest": 1.0, "factor_median": 1.0}


def test_empty_data_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        take(EpochSampler(RepeatFactors.uniform(0), 2), 1)
