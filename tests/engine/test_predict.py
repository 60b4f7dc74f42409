"""From files to detections in the pixels of the original image."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from aegl.engine.backend import TorchBackend
from aegl.engine.postprocess import to_original
from aegl.engine.predictor import predict
from aegl.engine.sources import find_images
from aegl.errors import DataError
from aegl.types import Detections


def one_per_image(boxes: list[list[float]], scores: list[float], padding: int = 1) -> Detections:
    """A batch of one image with the given boxes, full masks, and padding rows."""
    n, k = len(boxes), len(boxes) + padding
    result = Detections(
        torch.zeros(1, k, 4),
        torch.zeros(1, k),
        torch.full((1, k), -1),
        torch.ones(1, k, 4, 4),
        torch.tensor([n]),
        torch.ones(1, dtype=torch.bool),
    )
    result.boxes[0, :n], result.scores[0, :n] = torch.tensor(boxes).reshape(n, 4), torch.tensor(scores)
    result.labels[0, :n] = torch.arange(n) % 3
    return result


def test_boxes_return_to_the_original_image_and_are_clipped() -> None:
    detections = one_per_image(
        [[0, 0, 50, 100], [50, 20, 120, 60], [101, 5, 110, 9], [1, 1, 2, 2]], [0.9, 0.8, 0.7, 0.1]
    )
    found = to_original(detections, 0, size=(100, 100), orig_size=(50, 200), conf=0.5, max_det=10)
    assert found.boxes_orig.tolist() == [[0, 0, 100, 50], [100, 10, 200, 30]]  # the third lies in the padding
    assert found.scores == pytest.approx([0.9, 0.8])
    assert found.labels.tolist() == [0, 1]
    assert [mask["size"] for mask in found.masks] == [[50, 200]] * 2


def test_a_clipped_box_does_not_squeeze_its_mask() -> None:
    """A mask whose right half lies outside the image keeps its left half where it was."""
    detections = one_per_image([[50, 0, 150, 100]], [0.9])
    detections.masks[0, 0, :, :2] = 0
    found = to_original(detections, 0, size=(100, 100), orig_size=(100, 100), conf=0.0, max_det=10)
    from pycocotools import mask as mask_utils

    columns = mask_utils.decode(found.masks[0]).any(axis=0)
    assert not columns[:80].any()


def test_max_det_and_nothing_found() -> None:
    detections = one_per_image([[0, 0, 9, 9], [1, 1, 9, 9]], [0.9, 0.8])
    assert len(to_original(detections, 0, size=(10, 10), orig_size=(10, 10), conf=0.0, max_det=1)) == 1
    none = to_original(detections, 0, size=(10, 10), orig_size=(10, 10), conf=0.95, max_det=9)
    assert (len(none), none.boxes_orig.shape, none.masks) == (0, (0, 4), [])


class WhiteFinder(nn.Module):
    """Finds the one white rectangle of each image."""

    def forward(self, images: torch.Tensor) -> Detections:
        parts = []
        for image in images:
            ys, xs = torch.nonzero(image.float().mean(0) > 200, as_tuple=True)
            box = [[float(xs.min()), float(ys.min()), float(xs.max()) + 1, float(ys.max()) + 1]]
            parts.append(one_per_image(box, [0.75]))
        return Detections(*(torch.cat([getattr(p, f) for p in parts]) for f in vars(parts[0])))


def picture(path: Path, height: int, width: int, box: tuple[int, int, int, int]) -> Path:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_predict_in_batches_of_different_sizes(toy: ModuleType, tmp_path: Path) -> None:
    boxes = {"a.png": (8, 16, 32, 40), "b.png": (64, 32, 128, 96), "c.png": (8, 8, 16, 16)}
    sizes = {"a.png": (64, 64), "b.png": (128, 256), "c.png": (64, 32)}
    paths = [picture(tmp_path / name, *sizes[name], boxes[name]) for name in boxes]
    backend = TorchBackend(WhiteFinder(), toy.META)
    results = list(predict(backend, paths, conf=0.5, imgsz=32, max_size=64, batch=2))
    assert [r.path for r in results] == paths
    for result in results:
        assert result.boxes_orig[0] == pytest.approx(boxes[result.path.name], abs=4)
        assert (result.names, result.bands, len(result)) == (["ant"], ["r"], 1)
        x1, y1, x2, y2 = boxes[result.path.name]
        assert result.mask(0)[(y1 + y2) // 2, (x1 + x2) // 2]
        assert result.mask(0).shape == sizes[result.path.name]
        height = result.orig_size[0]
        drawn = np.asarray(result.draw())
        assert drawn.shape[0] > height
        as_json = json.loads(json.dumps(result.to_dict()))
        assert as_json["detections"][0]["category_id"] == 3
        assert as_json["detections"][0]["mask"]["size"] == list(result.orig_size)
    assert not list(predict(backend, [], conf=0.5))
    assert len(next(predict(backend, paths[:1], conf=0.8))) == 0


def test_predict_names_an_unreadable_image(toy: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        list(predict(TorchBackend(WhiteFinder(), toy.META), find_images(tmp_path), conf=0.5))


def test_find_images(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.JPG", "a.png", "notes.txt", "deep/c.webp"):
        (tmp_path / name).write_text("")
    names = {source: [p.name for p in find_images(tmp_path / source)] for source in ("", "*.png", "**/*", "notes.txt")}
    assert names == {
        "": ["a.png", "b.JPG"],
        "*.png": ["a.png"],
        "**/*": ["a.png", "b.JPG", "c.webp"],
        "notes.txt": ["notes.txt"],
    }
    (tmp_path / "empty").mkdir()
    for source, message in (("empty", "holds no image"), ("*.bmp", "matches no image"), ("x.png", "no such file")):
        with pytest.raises(DataError, match=f"source=.*{message}"):
            find_images(str(tmp_path / source))


def test_a_name_with_brackets_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").write_text("")
    assert find_images(tmp_path / "a[1].png") == [tmp_path / "a[1].png"]
