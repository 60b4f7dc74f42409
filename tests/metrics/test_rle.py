from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from aegl.metrics import rle
from aegl.metrics.rle import MaskColumn


def _column(masks: list[np.ndarray]) -> MaskColumn:
    return MaskColumn.from_counts([mask_utils.encode(np.asfortranarray(m))["counts"] for m in masks])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_pixel_counts_and_boxes_equal_the_pixels(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sizes = np.array(data.draw(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=6)))
    cover = data.draw(st.floats(0, 1))
    masks = [(rng.random(size) < cover).astype(np.uint8) for size in sizes]
    column = _column(masks)
    foreground, total = rle.pixel_counts(column)
    np.testing.assert_array_equal(foreground, [m.sum() for m in masks])
    np.testing.assert_array_equal(total, sizes.prod(axis=1))
    for box, mask in zip(rle.boxes_of(column, sizes), masks, strict=True):
        ys, xs = np.nonzero(mask)
        if len(ys):
            assert box.tolist() == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_more_masks_than_pycocotools_takes_at_once_and_more_bytes_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rle, "_CHUNK_BYTES", 100)
    rng = np.random.default_rng(0)
    masks = [(rng.random((30, 20)) < 0.5).astype(np.uint8) for _ in range(300)]
    column = _column(masks)
    np.testing.assert_array_equal(rle.pixel_counts(column)[0], [m.sum() for m in masks])
    boxes = rle.boxes_of(column, np.full((300, 2), (30, 20)))
    assert (boxes[:, 2:] > 15).all()


@pytest.mark.parametrize("counts", [b"", b"P", b"\x00\x01", b"zzzzzz", b"5O"], ids=repr)
def test_broken_strings_do_not_cover_an_image(counts: bytes) -> None:
    good = mask_utils.encode(np.asfortranarray(np.eye(8, dtype=np.uint8)))["counts"]
    total = rle.pixel_counts(MaskColumn.from_counts([good, counts, good]))[1]
    assert total[[0, 2]].tolist() == [64, 64]
    assert total[1] != 64


def _counted(counts: bytes) -> tuple[int, int]:
    """Foreground and all pixels, digit by digit; (0, -1) if the string is no valid encoding."""
    runs: list[int] = []
    digits: list[int] = []
    for code in (character - 48 for character in counts):
        digits.append(code)
        if not 0 <= code <= 63 or len(digits) > 7:
            return 0, -1
        if code < 32:
            number = sum((digit & 31) << (5 * place) for place, digit in enumerate(digits))
            number -= (code >> 4) << (5 * len(digits))
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            digits = []
    valid = not digits and runs and min(runs) >= 0
    return (sum(runs[1::2]), sum(runs)) if valid else (0, -1)


characters = st.integers(48, 79) | st.integers(48, 111) | st.sampled_from([0, 47, 112, 255])
strings = st.lists(st.lists(characters, max_size=12).map(bytes), max_size=8)


@settings(max_examples=300, deadline=None)
@given(strings, st.integers(1, 40), st.randoms(use_true_random=False))
def test_pixel_counts_of_any_strings_are_those_of_each_alone(strings: list[bytes], chunk: int, random: Random) -> None:
    rows = np.array([random.randrange(len(strings)) for _ in strings], dtype=np.int64)
    column = MaskColumn.from_counts(strings)
    expected = np.array([_counted(counts) for counts in strings], dtype=np.int64).reshape(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle, "_CHUNK_BYTES", chunk)
        for masks, (wanted, wanted_total) in ((column, expected.T), (column.take(rows), expected[rows].T)):
            foreground, total = rle.pixel_counts(masks)
            np.testing.assert_array_equal(total, wanted_total)
            np.testing.assert_array_equal(foreground[total >= 0], wanted[total >= 0])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_runs_are_those_of_the_pixels(height: int, width: int, cover: float, seed: int) -> None:
    mask = (np.random.default_rng(seed).random((height, width)) < cover).astype(np.uint8)
    runs = rle.runs_of(mask_utils.encode(np.asfortranarray(mask))["counts"])
    assert runs.dtype == np.int64
    assert np.repeat(np.arange(len(runs)) % 2, runs).tolist() == mask.T.reshape(-1).tolist()


def test_runs_of_more_than_half_a_thousand_million_pixels() -> None:
    runs = [3, 2**31 - 9, 2, 5, 2**30, 1]
    size = {"size": [sum(runs), 1], "counts": runs}
    counts = mask_utils.frPyObjects(size, sum(runs), 1)["counts"]
    assert rle.runs_of(counts).tolist() == runs
    assert [v.tolist() for v in rle.pixel_counts(MaskColumn.from_counts([counts]))] == [[2**31 - 3], [sum(runs)]]


def test_strings_that_stand_one_after_the_other_are_joined_without_a_copy() -> None:
    strings = [b"0123", b"45", b"", b"6", b"789"]
    column = MaskColumn.from_counts(strings)
    assert np.shares_memory(column.joined(np.arange(1, 4)), column.parts[0])
    for rows in ([1, 2, 3], [0, 2], [3, 1], [2], []):
        several_parts = MaskColumn.concatenate([column, column]).take(np.array(rows, dtype=np.int64) + 5)
        for masks in (column.take(np.array(rows, dtype=np.int64)), several_parts):
            assert masks.joined(np.arange(len(rows))).tobytes() == b"".join(strings[row] for row in rows)


def test_every_form_of_segmentation_encodes_alike() -> None:
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[4:12, 5:25] = 1
    counts = mask_utils.encode(np.asfortranarray(mask))["counts"]
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    polygon = [5.0, 4.0, 25.0, 4.0, 25.0, 12.0, 5.0, 12.0]
    forms = [
        {"size": [20, 30], "counts": counts},
        {"size": [20, 30], "counts": counts.decode()},
        {"size": [20, 30], "counts": runs},
        [polygon],
        [np.reshape(polygon, (-1, 2))],
    ]
    assert {rle.encode(form, 20, 30) for form in forms} == {counts}


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "neither"),
        ([], "neither"),
        ([[1.0, 2.0]], "polygon"),
        ([[1.0, 2.0, 3.0, 4.0, float("nan"), 1.0]], "polygon"),
        ({"size": [20, 31], "counts": "x"}, r"\[20, 31\]"),
        ({"counts": "x"}, "size is None"),
        ({"size": [20, 30]}, "no counts"),
        ({"size": [20, 30], "counts": [10, 5]}, "15 pixels"),
    ],
)
def test_unusable_segmentations(segmentation: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rle.encode(segmentation, 20, 30)
