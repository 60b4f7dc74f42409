"""Run lengths in NumPy against pycocotools, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from aegl.data.run_lengths import decode, run_lengths, to_counts


def official(runs: list[int]) -> bytes:
    size = [sum(runs), 1]
    return bytes(mask_utils.frPyObjects({"size": size, "counts": runs}, *size)["counts"])


# pycocotools keeps six characters per number: from differences of 2**29 on it would write past its buffer.
RUNS = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 2**24), st.integers(0, 2**29 - 1)), min_size=1, max_size=9)


@settings(max_examples=300, deadline=None)
@given(st.lists(RUNS, min_size=1, max_size=6))
def test_strings_are_those_of_pycocotools_and_read_back(masks: list[list[int]]) -> None:
    counts = to_counts([np.array(runs) for runs in masks])
    assert counts == [official(runs) for runs in masks]
    assert [run_lengths(text).tolist() for text in counts] == masks


@pytest.mark.parametrize("power", range(1, 29))
def test_numbers_where_a_digit_more_is_needed(power: int) -> None:
    edges = [2**power - 1, 2**power, 2**power + 1]
    for run in edges:
        for runs in ([run], [0, run], [0, run, 5, 0], [0, 0, 0, run], [7, run, run, 1, run]):
            assert to_counts([np.array(runs)]) == [official(runs)]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_decoding_gives_the_mask(height: int, width: int, cover: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < cover
    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert np.array_equal(decode(rle), mask)
    assert np.array_equal(decode({**rle, "counts": rle["counts"].decode()}), mask)


def test_no_masks() -> None:
    assert to_counts([]) == []
