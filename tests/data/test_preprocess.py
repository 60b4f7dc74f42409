"""Reading, resizing and padding images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aegl.data.preprocess import Preprocess, load_image, scale_boxes_to_orig
from aegl.errors import DataError


@pytest.fixture
def preprocess() -> Preprocess:
    return Preprocess(imgsz=64, max_size=100, stride=32, pad_value=(1, 2, 3))


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_target_size(height: int, width: int) -> None:
    p = Preprocess(imgsz=800, max_size=1333, stride=32, pad_value=(0, 0, 0))
    h, w = p.target_size(height, width)
    assert 1 <= min(h, w) <= 800
    assert max(h, w) <= 1333
    assert min(h, w) == 800 or max(h, w) == 1333
    assert abs(h * width - w * height) <= max(height, width)  # the ratio is kept up to rounding


def test_usual_sizes(preprocess: Preprocess) -> None:
    p = Preprocess(imgsz=800, max_size=1333, stride=32, pad_value=(0, 0, 0))
    assert p.target_size(480, 640) == (800, 1067)
    assert p.target_size(640, 480) == (1067, 800)
    assert p.target_size(400, 1000) == (533, 1333)
    assert preprocess.target_size(50, 50, short_side=32) == (32, 32)


def test_resize(preprocess: Preprocess) -> None:
    image = np.zeros((32, 40, 3), dtype=np.uint8)
    image[:, 20:] = 200
    resized, scale_y, scale_x = preprocess.resize(image)
    assert resized.shape == (64, 80, 3) and resized.dtype == np.uint8
    assert (scale_y, scale_x) == (2.0, 2.0)
    assert resized[:, :38].max() == 0 and resized[:, 42:].min() == 200
    same, *scales = preprocess.resize(resized)
    assert same is resized and scales == [1.0, 1.0]


def test_pad_batch(preprocess: Preprocess) -> None:
    small = np.full((30, 64, 3), 9, dtype=np.uint8)
    large = np.random.default_rng(0).integers(0, 256, (64, 40, 3), dtype=np.uint8)
    batch = preprocess.pad_batch([small, large])
    assert batch.shape == (2, 3, 64, 64) and batch.dtype == np.uint8
    assert np.array_equal(batch[1, :, :, :40], large.transpose(2, 0, 1))
    assert (batch[0, :, :30] == 9).all()
    for channel, value in enumerate((1, 2, 3)):
        assert (batch[0, channel, 30:] == value).all()
        assert (batch[1, channel, :, 40:] == value).all()


def test_canvas_is_a_multiple_of_the_stride(preprocess: Preprocess) -> None:
    assert preprocess.canvas_size([(33, 64), (10, 65)]) == (64, 96)


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (3000, 7), (7, 3000), (1, 1), (64, 96), (63, 97)])
def test_a_model_of_one_size_gets_every_image_on_its_canvas(size) -> None:
    fixed = Preprocess(imgsz=64, max_size=96, stride=32, pad_value=(1, 2, 3), canvas=(64, 96))
    height, width = fixed.target_size(*size)
    assert height <= 64 and width <= 96
    assert height == 64 or width == 96
    batch = fixed.pad_batch([np.zeros((height, width, 3), dtype=np.uint8)] * 2)
    assert batch.shape == (2, 3, 64, 96)
    free = Preprocess(imgsz=64, max_size=96, stride=32, pad_value=(1, 2, 3))
    if size[0] < size[1]:  # of the orientation that it was exported for nothing changes
        assert free.target_size(*size) == (height, width)


def test_boxes_back_to_the_original() -> None:
    boxes = np.array([[10, 10, 40, 50], [-5, 0, 90, 70]], dtype=np.float32)
    back = scale_boxes_to_orig(boxes, size=(50, 80), orig_size=(100, 160))
    assert back.dtype == np.float32
    assert back.tolist() == [[20, 20, 80, 100], [0, 0, 160, 100]]


def test_boxes_survive_the_round_trip(preprocess: Preprocess) -> None:
    image = np.zeros((37, 51, 3), dtype=np.uint8)
    resized, scale_y, scale_x = preprocess.resize(image)
    boxes = np.array([[3.0, 4.5, 20.25, 36.0]])
    there = boxes * [scale_x, scale_y, scale_x, scale_y]
    assert scale_boxes_to_orig(there, resized.shape[:2], (37, 51)) == pytest.approx(boxes, abs=1e-5)


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", (10, 20, 30), "png", (10, 20, 30)),
        ("L", 77, "png", (77, 77, 77)),
        ("1", 1, "png", (255, 255, 255)),
        ("LA", (77, 0), "png", (77, 77, 77)),
        ("RGBA", (10, 20, 30, 0), "png", (10, 20, 30)),
        ("I;16", 0x4D00, "png", (77, 77, 77)),
        ("CMYK", (0, 0, 0, 0), "tiff", (255, 255, 255)),
    ],
)
def test_every_kind_of_image_becomes_rgb(tmp_path, mode, colour, suffix, expected) -> None:
    file = tmp_path / f"image.{suffix}"
    Image.new(mode, (4, 3), colour).save(file)
    image = load_image(file)
    assert image.shape == (3, 4, 3) and image.dtype == np.uint8
    assert image[1, 1].tolist() == list(expected)


def test_palette_with_transparency(tmp_path) -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "image.png", transparency=b"\x00\x80")
    assert load_image(tmp_path / "image.png")[0, 0].tolist() == [10, 20, 30]


def test_exif_orientation_is_applied_on_request_only(tmp_path) -> None:
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert load_image(tmp_path / "turned.jpg").shape == (4, 8, 3)
    assert load_image(tmp_path / "turned.jpg", apply_exif=True).shape == (8, 4, 3)


def test_unreadable_images_are_named(tmp_path) -> None:
    good = tmp_path / "good.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(good)
    content = good.read_bytes()
    broken = {
        "truncated.jpg": content[: len(content) // 2],
        "text.jpg": b"this is no image",
        "empty.png": b"",
        "head.png": b"\x89PNG\r\n\x1a\n" + b"\x00" * 20,
    }
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            load_image(tmp_path / name)
    with pytest.raises(DataError, match=r"missing\.jpg does not exist"):
        load_image(tmp_path / "missing.jpg")
    with pytest.raises(DataError, match=tmp_path.name):
        load_image(tmp_path)
    Image.new("F", (3, 3)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match="floating-point"):
        load_image(tmp_path / "float.tiff")
