from typing import Any

import numpy as np
import pytest

from aegl.plots.colors import band_colors, band_label, shade, text_color
from aegl.plots.draw import draw_detections


def arguments(height: int, width: int) -> dict[str, Any]:
    masks = np.zeros((2, height, width), dtype=bool)
    masks[0, height // 4 : height // 2, width // 4 : width // 2] = True
    masks[1, height // 2 :, width // 2 :] = True
    x, y = width // 4, height // 4
    return {
        "image": np.full((height, width, 3), 90, dtype=np.uint8),
        "boxes": np.array([[x, y, 2 * x, 2 * y], [2 * x, 2 * y, width, height]], dtype=np.float32),
        "scores": np.array([0.5, 0.9]),
        "names": ["pineapple", "person"],
        "bands": np.array([0, 2]),
        "band_names": ("r", "c", "f"),
        "mask_of": lambda i: masks[i],
    }


def hue_of(pixel: np.ndarray) -> str:
    return ("red", "green", "blue")[int(np.argmax(pixel))]


@pytest.mark.parametrize(("height", "width"), [(96, 96), (480, 640), (1200, 900)])
def test_masks_have_their_bands_colour(height: int, width: int) -> None:
    picture = np.asarray(draw_detections(**arguments(height, width)))
    scale = picture.shape[1] // width
    inside_rare, inside_frequent = (
        picture[scale * height * 3 // 8, scale * width * 3 // 8],
        picture[scale * height * 7 // 8],
    )
    assert hue_of(inside_rare) == "red"
    assert hue_of(inside_frequent[scale * width * 3 // 4]) == "blue"
    assert picture[scale * height * 7 // 8, scale * width // 8].tolist() == [90, 90, 90]
    assert picture.shape[0] > scale * height  # the legend is below, not over the image
    assert picture[-1, -1].tolist() == [255, 255, 255]


def test_small_images_are_enlarged_and_large_ones_are_not() -> None:
    assert draw_detections(**arguments(96, 96)).width == 5 * 96
    assert draw_detections(**arguments(480, 640)).width == 640


def test_nothing_found_leaves_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (500, 480, 3), dtype=np.uint8)
    none = np.zeros(0, dtype=np.int64)
    picture = draw_detections(image, boxes=np.zeros((0, 4)), scores=none, names=[], bands=none, band_names=["all"])
    assert np.array_equal(np.asarray(picture)[:500], image)


def test_boxes_at_the_edges_and_empty_masks() -> None:
    values = arguments(480, 480) | {
        "boxes": np.array([[0, 0, 480, 480], [479, 479, 479.5, 479.5]]),
        "mask_of": lambda i: np.zeros((480, 480), dtype=bool),
    }
    assert draw_detections(**values).width == 480
    assert draw_detections(**values | {"mask_of": None}).width == 480


def test_the_best_detection_is_on_top() -> None:
    whole = np.ones((480, 480), dtype=bool)
    values = arguments(480, 480) | {"mask_of": lambda i: whole}
    middle = [
        np.asarray(draw_detections(**values | {"scores": np.array(s)}))[240, 20] for s in ([0.1, 0.9], [0.9, 0.1])
    ]
    assert [pixel[2] > pixel[0] for pixel in middle] == [True, False]


def test_the_drawn_image_is_not_changed() -> None:
    values = arguments(480, 640)
    before = values["image"].copy()
    draw_detections(**values)
    assert np.array_equal(values["image"], before)


@pytest.mark.parametrize("num_bands", [1, 2, 3, 4, 5, 6])
def test_band_colours_differ(num_bands: int) -> None:
    colors = band_colors(num_bands)
    assert len(set(colors)) == num_bands
    assert hue_of(np.array(colors[-1])) == "blue"
    assert num_bands == 1 or hue_of(np.array(colors[0])) == "red"


def test_many_bands_share_colours() -> None:
    assert len(band_colors(9)) == 9


def test_labels_can_be_read() -> None:
    assert text_color((240, 228, 66)) == (0, 0, 0)
    assert text_color((0, 114, 178)) == (255, 255, 255)
    assert [band_label(name) for name in ("r", "c", "f", "bin 1")] == ["rare", "common", "frequent", "bin 1"]
    assert shade((100, 0, 200), 0.5) == (50, 0, 100)
    assert shade((100, 0, 200), 1.5) == (178, 128, 228)
