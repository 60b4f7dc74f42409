"""Pasting: what is covered, what is left, and where the pixels go, against whole-image masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_utils

from aegl.data.annotated import AnnotatedObjects
from aegl.data.categories import CategoryTable
from aegl.data.masks import Segmentation
from aegl.data.paste import Paste, Placed, blend, occlude, scale_to_fit
from aegl.data.segments import SegmentFolder, open_segments

HEIGHT, WIDTH = 14, 18


@st.composite
def placed_segments(draw: st.DrawFn) -> list[Placed]:
    """Segments of random alpha at random places of the image."""
    placed = []
    for _ in range(draw(st.integers(1, 3))):
        height, width = draw(st.integers(1, HEIGHT)), draw(st.integers(1, WIDTH))
        rng = np.random.default_rng(draw(st.integers(0, 1000)))
        pixels = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        pixels[..., 3] = rng.choice([0, 60, 127, 128, 255], (height, width), p=[0.2, 0.05, 0.05, 0.1, 0.6])
        top, left = draw(st.integers(0, HEIGHT - height)), draw(st.integers(0, WIDTH - width))
        placed.append(Placed(pixels, top, left, draw(st.integers(0, 4))))
    return placed


@st.composite
def outline(draw: st.DrawFn) -> tuple[np.ndarray, Segmentation]:
    """A polygon's or two polygons' box and outline, or those of a run-length mask."""
    corner = st.tuples(st.floats(0, WIDTH, allow_subnormal=False), st.floats(0, HEIGHT, allow_subnormal=False))
    if draw(st.booleans()):
        polygons = [np.array(draw(st.lists(corner, min_size=3, max_size=5))) for _ in range(draw(st.integers(1, 2)))]
        points = np.concatenate(polygons)
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
        box[2:] = np.maximum(box[2:], box[:2] + 1e-3)
        return np.minimum(box, [WIDTH - 1e-3, HEIGHT - 1e-3, WIDTH, HEIGHT]), polygons
    mask = np.random.default_rng(draw(st.integers(0, 1000))).random((HEIGHT, WIDTH)) < draw(st.floats(0.02, 0.6))
    mask[draw(st.integers(0, HEIGHT - 1)), draw(st.integers(0, WIDTH - 1))] = True
    return box_of(mask), mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))


def objects_of(outlines: list[tuple[np.ndarray, Segmentation]]) -> AnnotatedObjects:
    boxes = np.array([box for box, _ in outlines], dtype=np.float64).reshape(-1, 4)
    return AnnotatedObjects(boxes, np.arange(len(outlines)), [segmentation for _, segmentation in outlines])


def box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float64)


def whole(segmentation: Segmentation) -> np.ndarray:
    """``[h, w]`` bool mask of the image, by pycocotools, polygon by polygon."""
    if isinstance(segmentation, dict):
        return np.asarray(mask_utils.decode(segmentation), dtype=bool)
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for polygon in segmentation:
        (rle,) = mask_utils.frPyObjects([polygon.ravel().tolist()], HEIGHT, WIDTH)
        mask |= mask_utils.decode(rle).astype(bool)
    return mask


def painted(placed: list[Placed]) -> np.ndarray:
    """``[h, w]`` number of the segment in front, pixel by pixel; -1 for none."""
    front = np.full((HEIGHT, WIDTH), -1)
    for number, segment in enumerate(placed):
        for y, x in np.ndindex(segment.pixels.shape[:2]):
            if segment.pixels[y, x, 3] > 127:
                front[segment.top + y, segment.left + x] = number
    return front


@settings(max_examples=300, deadline=None)
@given(
    outlines=st.lists(outline(), max_size=4),
    placed=placed_segments(),
    min_visible=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_what_is_left_is_the_mask_without_what_is_in_front(
    outlines: list[tuple[np.ndarray, Segmentation]], placed: list[Placed], min_visible: float
) -> None:
    front = painted(placed)
    expected: list[tuple[int, np.ndarray, np.ndarray | None]] = []  # label, box, mask (None: as it was)
    for label, (box, segmentation) in enumerate(outlines):
        mask = whole(segmentation)
        left = mask & (front < 0)
        if not mask.any():  # between the pixels: as visible as the pixel at its middle
            x, y = (np.floor(box[:2]).astype(int) + np.ceil(box[2:]).astype(int) - 1) // 2
            if front[y, x] < 0:
                expected.append((label, box, None))
        elif left.sum() == mask.sum():
            expected.append((label, box, None))
        elif left.any() and left.sum() >= min_visible * mask.sum():
            expected.append((label, box_of(left), left))
    for number, segment in enumerate(placed):
        left, area = front == number, (segment.pixels[..., 3] > 127).sum()
        if left.any() and left.sum() >= min_visible * area:
            expected.append((segment.label, box_of(left), left))

    got = occlude(objects_of(outlines), placed, (HEIGHT, WIDTH), min_visible)
    assert got.labels.tolist() == [label for label, _, _ in expected]
    np.testing.assert_array_equal(got.boxes, np.array([box for _, box, _ in expected]).reshape(-1, 4))
    for segmentation, (label, _, mask) in zip(got.segmentations, expected, strict=True):
        if mask is None:
            assert segmentation is outlines[label][1]
        else:
            np.testing.assert_array_equal(whole(segmentation), mask)


@settings(max_examples=100, deadline=None)
@given(placed=placed_segments())
def test_pixels_are_mixed_by_alpha_and_all_others_stay(placed: list[Placed]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    before = image.copy()
    expected = image.astype(np.float64)
    touched = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for segment in placed:
        alpha = segment.pixels[..., 3:] / 255
        behind = expected[segment.where]
        expected[segment.where] = np.rint(alpha * segment.pixels[..., :3] + (1 - alpha) * behind)
        touched[segment.where] |= segment.pixels[..., 3] > 0
    blended = blend(image, placed)
    np.testing.assert_array_equal(blended, expected)
    np.testing.assert_array_equal(blended[~touched], image[~touched])
    np.testing.assert_array_equal(image, before)


def test_a_mask_of_very_many_polygons_is_cut_as_a_whole() -> None:
    corners = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], dtype=np.float64)
    polygons = [corners + np.array([4 * (k % 25), 4 * (k // 25)]) for k in range(300)]
    objects = AnnotatedObjects(np.array([[0.0, 0, 98, 46]]), np.array([0]), [polygons])
    left_half = Placed(np.full((48, 50, 4), 255, dtype=np.uint8), 0, 0, 1)
    got = occlude(objects, [left_half], (48, 100), 0.1)
    assert mask_utils.area(got.segmentations[0]) == 4 * 12 * 12  # 12 of 25 columns of squares
    assert got.boxes[0].tolist() == [52, 0, 98, 46]


@settings(max_examples=100, deadline=None)
@given(
    segment=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    limit=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    longer=st.floats(0.2, 80),
)
def test_a_segment_keeps_its_ratio_and_fits(segment: tuple[int, int], limit: tuple[int, int], longer: float) -> None:
    scaled = scale_to_fit(np.zeros((*segment, 4), dtype=np.uint8), longer, limit).shape[:2]
    scale = min(longer / max(segment), *(most / side for most, side in zip(limit, segment, strict=True)))
    for side, was, most in zip(scaled, segment, limit, strict=True):
        assert 1 <= side <= most and side == pytest.approx(max(was * scale, 1), abs=0.5 + 1e-9)


def test_hidden_colours_do_not_bleed_when_a_segment_is_resized() -> None:
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, :4] = [200, 10, 10, 255]
    pixels[:, 4:, 1] = 255  # bright green behind zero alpha
    scaled = scale_to_fit(pixels, 19, (19, 19))
    seen = scaled[scaled[..., 3] > 0]
    assert len(seen) and (seen[:, 1] <= 12).all() and (seen[:, 0] >= 198).all()


@pytest.fixture
def folder(tmp_path: Path) -> SegmentFolder:
    """Red squares of the first class, green ones of the second, which has a quarter of the images."""
    for key, color in ((1, (255, 0, 0, 255)), (2, (0, 255, 0, 255))):
        (tmp_path / str(key)).mkdir()
        for number in range(2):
            Image.new("RGBA", (4, 4), color).save(tmp_path / str(key) / f"{number}.png")
    return open_segments(tmp_path, CategoryTable(np.array([1, 2, 3]), ("a", "b", "c")), np.array([12, 3, 1]))


NOTHING = AnnotatedObjects(np.zeros((0, 4)), np.zeros(0, dtype=np.int64), [])
BLACK = np.zeros((40, 60, 3), dtype=np.uint8)


def test_what_is_drawn_follows_the_parameters(folder: SegmentFolder) -> None:
    paste = Paste(folder, probability=0.75, counts=(1, 2), sizes=(0.1, 0.3), min_visible=0.0)
    rng = np.random.default_rng(0)
    results = [paste(BLACK, NOTHING, rng) for _ in range(3000)]
    counts = np.array([len(objects.labels) for _, objects in results])
    assert np.mean(counts == 0) == pytest.approx(0.25, abs=0.03)
    assert counts.max() == 2 and np.mean(counts[counts > 0]) == pytest.approx(1.5, abs=0.05)
    labels = np.concatenate([objects.labels for _, objects in results])
    assert np.mean(labels == 1) == pytest.approx(0.8, abs=0.03)  # 1/3 against 1/12
    alone = np.array([objects.boxes[0] for _, objects in results if len(objects.labels) == 1])
    sides = alone[:, 2] - alone[:, 0]
    assert sides.min() == 6 and sides.max() == 18 and sides.mean() == pytest.approx(12, abs=0.4)
    places = alone[:, 0] / (60 - sides)
    assert places.min() == 0 and places.max() == 1 and places.mean() == pytest.approx(0.5, abs=0.03)


def test_boxes_and_masks_lie_on_the_pixels(folder: SegmentFolder) -> None:
    paste = Paste(folder, probability=1.0, counts=(1, 1))
    for seed in range(20):
        image, objects = paste(BLACK, NOTHING, np.random.default_rng(seed))
        np.testing.assert_array_equal(objects.boxes[0], box_of(image[..., objects.labels[0]] > 0))
        np.testing.assert_array_equal(mask_utils.decode(objects.segmentations[0]) > 0, image.any(axis=2))
    assert not BLACK.any()


def test_segments_are_mirrored_as_often_as_said(folder: SegmentFolder) -> None:
    half = np.zeros((4, 4, 4), dtype=np.uint8)
    half[..., 3] = 255
    half[:, :2, 0] = 255
    for path in folder.folder.glob("*/*.png"):
        Image.fromarray(half).save(path)

    def mirrored(flip: float) -> float:
        paste = Paste(folder, probability=1.0, counts=(1, 1), sizes=(0.2, 0.2), flip=flip)
        rng = np.random.default_rng(0)
        found = []
        for _ in range(200):
            image, objects = paste(BLACK, NOTHING, rng)
            x1, y1, x2, _ = objects.boxes[0].astype(int)
            found.append(image[y1, x2 - 1, 0] > image[y1, x1, 0])
        return float(np.mean(found))

    assert mirrored(0.0) == 0 and mirrored(1.0) == 1 and mirrored(0.3) == pytest.approx(0.3, abs=0.1)


def test_the_same_generator_gives_the_same_and_another_another(folder: SegmentFolder) -> None:
    paste = Paste(folder, probability=1.0)
    first, again, other = (paste(BLACK, NOTHING, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1].boxes, again[1].boxes)
    assert not np.array_equal(first[0], other[0])
