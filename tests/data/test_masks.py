"""Masks over boxes, and pasted masks as run lengths: against pycocotools and torch on whole images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from aegl.data.masks import rasterize_in_box, rasterize_in_boxes
from aegl.runtime.masks import paste_and_encode

DIAMOND = np.array([[10.0, 20.0], [30.0, 5.0], [50.0, 20.0], [30.0, 35.0]])
DIAMOND_BOX = np.array([10.0, 5.0, 50.0, 35.0])


def full_mask(polygons, height, width) -> np.ndarray:
    flat = [p.ravel().tolist() for p in polygons]
    return mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(flat, height, width)))


def rle_of(mask: np.ndarray) -> dict:
    return mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max((a | b).sum(), 1)


def paste_whole(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """The rule over the whole image, by torch's own sampler in double precision."""
    x1, y1, x2, y2 = box
    x = (np.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
    y = (np.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
    grid = torch.from_numpy(np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1))[None]
    source = torch.from_numpy(mask.astype(np.float64))[None, None]
    return torch.nn.functional.grid_sample(source, grid, align_corners=False)[0, 0].numpy()


@st.composite
def pasted(draw):
    """Image size, box (often beyond the image, sometimes on whole pixels or over everything), mask, threshold."""
    height, width = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    corner, extent = rng.uniform(-20, 55, 2), rng.exponential(20, 2) + 0.01
    kind = draw(st.sampled_from(["any", "whole", "cover"]))
    if kind == "whole":
        corner, extent = np.round(corner), np.ceil(extent)
    elif kind == "cover":
        corner, extent = np.array([-30.0, -30.0]), np.array([120.0, 120.0])
    side = draw(st.integers(1, 9))
    mask = rng.random((side, side)) ** 0.5
    mask = mask if draw(st.booleans()) else mask > 0.5
    threshold = draw(st.sampled_from([0.5, 0.3, 0.01, 1.0]))
    return height, width, np.concatenate([corner, corner + extent]), mask.astype(np.float32), threshold


@settings(max_examples=200, deadline=None)
@given(pasted())
def test_pasting_inside_the_box_equals_pasting_the_whole_image(case) -> None:
    height, width, box, mask, threshold = case
    (rle,) = paste_and_encode(mask[None], box[None], height, width, threshold)
    got = mask_utils.decode(rle)
    values = paste_whole(mask, box, height, width)
    clear = np.abs(values - threshold) > 1e-5  # float32 may fall on either side of a tie
    assert rle["size"] == [height, width]
    assert np.array_equal(got[clear], (values >= threshold)[clear])
    assert rle["counts"] == rle_of(got)["counts"]


def test_pasting_is_byte_identical_to_pycocotools_on_smooth_masks() -> None:
    rng = np.random.default_rng(1)
    yy, xx = np.mgrid[:28, :28] / 27.0
    for _ in range(20):
        centre, spread = rng.uniform(0.2, 0.8, 2), rng.uniform(0.1, 0.6)
        mask = np.exp(-((xx - centre[0]) ** 2 + (yy - centre[1]) ** 2) / spread**2).astype(np.float32)
        corner = rng.uniform(-40, 260, 2)
        box = np.concatenate([corner, corner + rng.uniform(3, 200, 2)])
        expected = rle_of(paste_whole(mask, box, 200, 300) >= 0.5)["counts"]
        assert paste_and_encode(mask[None], box[None], 200, 300)[0]["counts"] == expected


@pytest.mark.parametrize(
    "box",
    [
        [5, 5, 5, 9],
        [9, 5, 5, 9],
        [-30, 0, -20, 10],
        [100, 100, 120, 120],
        [1e30, 0, 2e30, 5],
        [float("nan"), 0, 5, 5],
        [0, 0, float("inf"), 5],
    ],
)
def test_boxes_without_area_in_the_image_give_the_empty_mask(box) -> None:
    (rle,) = paste_and_encode(np.ones((1, 7, 7)), np.array([box]), 30, 40)
    assert rle["counts"] == rle_of(np.zeros((30, 40)))["counts"]


def test_empty_and_full_masks() -> None:
    assert paste_and_encode(np.zeros((0, 28, 28)), np.zeros((0, 4)), 10, 10) == []
    empty, full = paste_and_encode(
        np.stack([np.zeros((4, 4)), np.ones((4, 4))]), np.array([[2, 3, 8, 9], [-50, -50, 90, 90]]), 10, 12
    )
    assert empty["counts"] == rle_of(np.zeros((10, 12)))["counts"]
    assert full["counts"] == rle_of(np.ones((10, 12)))["counts"]


@pytest.mark.parametrize("threshold", [0.0, 1.5, -1.0])
def test_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        paste_and_encode(np.ones((1, 4, 4)), np.array([[0, 0, 4, 4]]), 10, 10, threshold)


def test_polygon_in_its_box() -> None:
    mask = rasterize_in_box([DIAMOND], DIAMOND_BOX, 64, (60, 80))
    yy, xx = np.mgrid[:64, :64] + 0.5
    expected = np.abs(xx / 32 - 1) + np.abs(yy / 32 - 1) <= 1
    assert mask.dtype == np.uint8
    assert iou(mask.astype(bool), expected) > 0.95


def test_polygon_does_not_need_a_mask_of_the_image() -> None:
    huge = (10**7, 10**7)
    assert np.array_equal(
        rasterize_in_box([DIAMOND], DIAMOND_BOX, 28, huge), rasterize_in_box([DIAMOND], DIAMOND_BOX, 28, (60, 80))
    )


def test_polygon_is_cut_at_the_box() -> None:
    mask = rasterize_in_box([DIAMOND], np.array([10.0, 5.0, 30.0, 20.0]), 40, (60, 80))
    assert mask[-1].all() and mask[:, -1].all() and not mask[:10, :10].any()


def test_rle_agrees_with_its_polygon() -> None:
    big = DIAMOND * 4
    box = DIAMOND_BOX * 4
    from_rle = rasterize_in_box(rle_of(full_mask([big], 240, 320)), box, 56, (240, 320))
    assert iou(from_rle.astype(bool), rasterize_in_box([big], box, 56, (240, 320)).astype(bool)) > 0.95


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30))
def test_rle_in_a_box_on_whole_pixels_is_the_crop(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
    x, y = int(rng.integers(width)), int(rng.integers(height))
    side = int(rng.integers(1, min(width - x, height - y) + 1))
    got = rasterize_in_box(rle_of(mask), np.array([x, y, x + side, y + side], dtype=float), side, (height, width))
    assert np.array_equal(got, mask[y : y + side, x : x + side])


def test_rle_shrinks_by_area() -> None:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[:4, :3] = 1  # three quarters of the upper left cell
    mask[4:, :1] = 1  # one quarter of the lower left cell
    assert rasterize_in_box(rle_of(mask), np.array([0.0, 0, 8, 8]), 2, (8, 8)).tolist() == [[1, 0], [0, 0]]


def test_rle_counts_may_be_text() -> None:
    rle = rle_of(full_mask([DIAMOND], 60, 80))
    text = {**rle, "counts": rle["counts"].decode()}
    assert np.array_equal(
        rasterize_in_box(text, DIAMOND_BOX, 16, (60, 80)), rasterize_in_box(rle, DIAMOND_BOX, 16, (60, 80))
    )


def test_rle_of_another_image_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        rasterize_in_box(rle_of(np.ones((5, 6))), np.array([0.0, 0, 4, 4]), 7, (6, 5))


def test_many_objects_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(0)
    segmentations, boxes = [], []
    for k in range(300):  # more than pycocotools takes at once
        polygon = DIAMOND * rng.uniform(0.2, 0.8) + rng.uniform(0, 20, 2)
        two = [polygon, polygon + 5] if k % 3 else [polygon, polygon[:2]]
        segmentations.append(rle_of(full_mask(two[:1], 60, 80)) if k % 5 == 0 else two)
        boxes.append([*polygon.min(axis=0), *(polygon.max(axis=0) + 5)])
    together = rasterize_in_boxes(segmentations, np.array(boxes), 14, (60, 80))
    single = [rasterize_in_box(s, b, 14, (60, 80)) for s, b in zip(segmentations, np.array(boxes), strict=True)]
    assert np.array_equal(together, np.stack(single))
    assert together.any(axis=(1, 2)).all()


def test_no_objects() -> None:
    assert rasterize_in_boxes([], np.zeros((0, 4)), 28, (10, 10)).shape == (0, 28, 28)
