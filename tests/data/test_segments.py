"""A folder of segments: what may lie in it, how classes are drawn from it, and cutting one out of annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aegl.data.categories import CategoryTable
from aegl.data.segments import SegmentFolder, open_segments
from aegl.data_tasks import data_segments
from aegl.errors import ConfigError, DataError
from aegl.progress import SilentProgress

QUIET = SilentProgress()
CATEGORIES = CategoryTable(np.array([3, 7, 20]), ("ant", "bee", "emu"))
COUNTS = np.array([100, 10, 0])


def segment(path: Path, mode: str = "RGBA", alpha: int = 255, size: tuple[int, int] = (6, 4)) -> Path:
    """Writes a grey picture with a transparent frame of one pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 4), 90, dtype=np.uint8)
    pixels[..., 3] = 0
    pixels[1:-1, 1:-1, 3] = alpha
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def opened(folder: Path) -> SegmentFolder:
    found = open_segments(folder, CATEGORIES, COUNTS)
    found.check(1, QUIET)
    return found


def test_segments_are_found_by_class(tmp_path: Path) -> None:
    for name in ("20/z.png", "3/a.png", "3/b.PNG", "3/.hidden", ".notes/x.txt"):
        segment(tmp_path / "tmp.png").rename(_made(tmp_path / name))
    (tmp_path / "7").mkdir()  # a class without any
    found = opened(tmp_path)
    assert found.names.tolist() == ["3/a.png", "3/b.PNG", "20/z.png"]
    assert [found.label_of(k) for k in range(3)] == [0, 0, 2]
    assert found.load(0).shape == (2, 4, 4)  # without the transparent frame
    assert found.probabilities == pytest.approx([1 / 101, 100 / 101])  # an unseen class counts as seen once


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_classes_are_drawn_by_one_over_their_images_and_segments_evenly(tmp_path: Path) -> None:
    for name in ("3/a.png", "7/a.png", "7/b.png", "7/c.png"):
        segment(tmp_path / name)
    found = opened(tmp_path)
    rng = np.random.default_rng(0)
    drawn = np.bincount([found.draw(rng) for _ in range(20_000)]) / 20_000
    assert drawn == pytest.approx([1 / 11, *[10 / 33] * 3], abs=0.015)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_may_come_with_any_colours(tmp_path: Path, mode: str) -> None:
    segment(tmp_path / "3" / "a.png", mode)
    pixels = opened(tmp_path).load(0)
    assert (pixels[..., :3] == 90).all() and (pixels[..., 3] == 255).all()


def test_a_palette_with_transparency_has_alpha(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.putpixel((0, 0), 0)
    (tmp_path / "3").mkdir()
    image.save(tmp_path / "3" / "a.png", transparency=0)
    pixels = opened(tmp_path).load(0)
    assert pixels[0, 0, 3] == 0 and pixels[1, 1].tolist() == [200, 100, 50, 255]


def _spoilt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: segment(path, "RGB"), r"3/a\.png has no alpha channel"),
        (lambda path: segment(path, "L"), r"3/a\.png has no alpha channel"),
        (lambda path: segment(path, alpha=127), r"3/a\.png is empty: no pixel is opaque"),
        (_spoilt, r"3/a\.png cannot be read"),
        (lambda path: path.write_text("no picture"), r"3/a\.png cannot be read"),
        (lambda path: path.unlink() or path.mkdir(), r"3/a\.png cannot be read"),
        (lambda path: segment(path.with_suffix(".jpg"), "RGB"), r"3/a\.jpg is no PNG"),
        (lambda path: segment(path.parents[1] / "4" / "a.png"), r"4 is not the id of a category"),
        (lambda path: segment(path.parents[1] / "bee" / "a.png"), r"bee is not the id of a category"),
        (lambda path: segment(path.parents[1] / "03" / "a.png"), r"03 is not the id of a category"),
        (lambda path: segment(path.parents[1] / "a.png"), r"a\.png is a file where only folders"),
        (lambda path: path.unlink(), r"holds no segment"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(segment(tmp_path / "3" / "a.png"))
    with pytest.raises(DataError, match=f"paste.folder={tmp_path}: {message}"):
        opened(tmp_path)


def test_many_problems_are_one_message(tmp_path: Path) -> None:
    for number in range(8):
        segment(tmp_path / "3" / f"{number}.png", "RGB")
    with pytest.raises(DataError, match=r"3/0\.png has no .*; 3/4\.png has no .*; and 3 more$"):
        opened(tmp_path)


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none: no such folder; `aegl data segments data=\.\.\. output=.*none`"):
        opened(tmp_path / "none")


def test_a_segment_that_is_gone_later_is_named(tmp_path: Path) -> None:
    path = segment(tmp_path / "3" / "a.png")
    found = opened(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=rf"segment {path}: does not exist"):
        found.load(0)


COLOURS = {3: (250, 0, 0), 7: (0, 250, 0)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An image with three ants of 4, 9 and 16 pixels, an L-shaped bee, a crowd, and an ant without a pixel."""
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    annotations = []

    def add(key: int, category: int, x: int, y: int, corners: list[int], **more: object) -> None:
        points = np.array(corners).reshape(-1, 2) + np.array([x, y])
        width, height = (int(v) for v in points.max(axis=0) - points.min(axis=0))
        pixels[y : y + height, x : x + width] = COLOURS[category]
        record = {"id": key, "image_id": 1, "category_id": category, "bbox": [x, y, width, height]}
        annotations.append({**record, "segmentation": [points.ravel().tolist()], **more})

    for key, side in ((11, 2), (12, 3), (13, 4)):
        add(key, 3, 6 * (key - 11), 1, [0, 0, side, 0, side, side, 0, side], area=side * side)
    add(14, 7, 20, 3, [0, 0, 2, 0, 2, 2, 4, 2, 4, 4, 0, 4], area=12)
    add(15, 7, 1, 10, [0, 0, 8, 0, 8, 8, 0, 8], area=64, iscrowd=1)
    add(16, 3, 25, 15, [0, 0, 1, 0, 1, 1], area=500)
    content = {
        "images": [{"id": 1, "height": 20, "width": 30, "file_name": "x.png"}],
        "annotations": annotations,
        "categories": [{"id": key, "name": str(key)} for key in (3, 7, 20)],
    }
    Image.fromarray(pixels).save(tmp_path / "x.png")
    (tmp_path / "data.json").write_text(json.dumps(content))
    return tmp_path / "data.json"


def test_the_largest_objects_are_cut_out_tight_and_by_their_masks(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "segments"
    result = data_segments({"data": str(data), "output": str(output), "per_class": 3}, QUIET)
    assert result == {
        "data": "data",
        "output": str(output),
        "per_class": 3,
        "segments": 3,
        "classes": 2,
        "classes_without_segments": 1,
    }
    # Of ants 16, 13 and 12 are the largest by the file, but the mask of 16 covers no pixel.
    written = sorted(str(path.relative_to(output)) for path in output.glob("*/*"))
    assert written == ["3/12.png", "3/13.png", "7/14.png"]
    ant, bee = (np.asarray(Image.open(output / name)) for name in ("3/13.png", "7/14.png"))
    assert (ant == [*COLOURS[3], 255]).all() and ant.shape == (4, 4, 4)
    alpha = np.full((4, 4), 255)
    alpha[:2, 2:] = 0
    np.testing.assert_array_equal(bee[..., 3], alpha)
    assert (bee[alpha > 0][:, :3] == COLOURS[7]).all() and not bee[alpha == 0].any()
    found = opened(output)
    assert len(found) == 3 and found.labels.tolist() == [0, 1]


def test_nothing_is_written_over(data: Path, tmp_path: Path) -> None:
    keys = {"data": str(data), "output": str(tmp_path / "segments"), "per_class": 1}
    data_segments(keys, QUIET)
    with pytest.raises(ConfigError, match="is there already"):
        data_segments(keys, QUIET)


def test_data_without_masks_has_nothing_to_cut_out(data: Path, tmp_path: Path) -> None:
    content = json.loads(data.read_text())
    for record in content["annotations"]:
        del record["segmentation"]
    data.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no object has a mask"):
        data_segments({"data": str(data), "output": str(tmp_path / "segments")}, QUIET)
    assert not (tmp_path / "segments").exists()
