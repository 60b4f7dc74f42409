"""Masks at the size of the network's input, brought to the image: against pycocotools, and like masks over boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from aegl.data.run_lengths import decode
from aegl.runtime.masks import resize_and_encode
from aegl.runtime.postprocess import to_original


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1), st.sampled_from([bool, np.uint8]))
def test_masks_of_the_images_own_size_stay_as_they_are(height: int, width: int, seed: int, kind: type) -> None:
    rng = np.random.default_rng(seed)
    canvas = rng.random((2, height + 3, width + 5)) < rng.random()
    for mask, rle in zip(canvas, resize_and_encode(canvas.astype(kind), (height, width), height, width), strict=True):
        expected = mask_utils.encode(np.asfortranarray(mask[:height, :width].astype(np.uint8)))
        assert rle == expected


@pytest.mark.parametrize("orig_size", [(30, 50), (200, 300), (100, 150)])
def test_both_forms_of_masks_say_the_same(orig_size: tuple[int, int]) -> None:
    """A disc over its box, and the same disc drawn on the canvas, whose padding holds a thing that is none."""
    box = np.array([[20.0, 30.0, 110.0, 80.0]])
    cells = (np.arange(28) + 0.5) / 14 - 1
    over_box = np.clip(0.5 + 5 * (1 - np.hypot(cells[:, None], cells[None, :])), 0, 1).astype(np.float32)[None]
    y, x = np.mgrid[:128, :160] + 0.5
    on_canvas = np.hypot((x - 65) / 45, (y - 55) / 25) <= 1
    on_canvas[100:] = True
    found = [
        to_original(box, np.ones(1), np.zeros(1), masks, size=(100, 150), orig_size=orig_size, conf=0.5, max_det=9)
        for masks in (over_box, on_canvas[None])
    ]
    first, second = (decode(each.masks[0]) for each in found)
    assert first.shape == second.shape == orig_size
    assert (first & second).sum() / (first | second).sum() > 0.93
    assert found[0].boxes_orig.tolist() == found[1].boxes_orig.tolist()
