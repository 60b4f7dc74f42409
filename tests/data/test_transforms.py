"""Scaling and mirroring of objects."""

import numpy as np
import pytest

from aegl.data.transforms import Objects, TrainTransform, flip_image


@pytest.fixture
def objects() -> Objects:
    boxes = np.array([[2, 3, 12, 9], [0, 0, 40, 30]], dtype=np.float32)
    masks = np.random.default_rng(0).integers(0, 2, (2, 7, 7), dtype=np.uint8)
    return Objects(boxes, np.array([4, 1]), masks)


def test_flip_moves_boxes_and_mirrors_masks(objects: Objects) -> None:
    flipped = objects.flipped(40)
    assert flipped.boxes.tolist() == [[28, 3, 38, 9], [0, 0, 40, 30]]
    assert np.array_equal(flipped.masks, objects.masks[..., ::-1])
    assert flipped.labels is objects.labels


def test_flipping_twice_changes_nothing(objects: Objects) -> None:
    twice = objects.flipped(40).flipped(40)
    assert np.array_equal(twice.boxes, objects.boxes)
    assert np.array_equal(twice.masks, objects.masks)


def test_flip_of_the_image_and_of_a_box_agree() -> None:
    image = np.zeros((30, 40, 3), dtype=np.uint8)
    image[3:9, 2:12] = 255
    rows, columns = np.nonzero(flip_image(image)[..., 0])
    (box,) = Objects(np.array([[2, 3, 12, 9]], dtype=np.float32), np.zeros(1), np.zeros((1, 2, 2))).flipped(40).boxes
    assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_scaling(objects: Objects) -> None:
    scaled = objects.scaled(2.0, 0.5)
    assert scaled.boxes.tolist() == [[1, 6, 6, 18], [0, 0, 20, 60]]
    assert scaled.boxes.dtype == np.float32
    assert scaled.masks is objects.masks


def test_take(objects: Objects) -> None:
    (one,) = objects.take(np.array([False, True])).labels
    assert one == 1
    assert len(objects.take(np.array([False, False]))) == 0


def test_draws_come_from_the_generator_and_follow_the_parameters() -> None:
    transform = TrainTransform((10, 20, 30), 0.25)
    rng = np.random.default_rng(0)
    draws = [transform.draw(rng) for _ in range(4000)]
    sides, counts = np.unique([side for side, _ in draws], return_counts=True)
    assert sides.tolist() == [10, 20, 30] and counts.min() > 1200
    assert np.mean([flip for _, flip in draws]) == pytest.approx(0.25, abs=0.03)
    again = np.random.default_rng(0)
    assert [transform.draw(again) for _ in range(20)] == draws[:20]


@pytest.mark.parametrize(("flip", "expected"), [(0.0, False), (1.0, True)])
def test_never_and_always(flip: float, expected: bool) -> None:
    rng = np.random.default_rng(0)
    assert {TrainTransform((8,), flip).draw(rng)[1] for _ in range(50)} == {expected}
