"""Tiles cover an image, and what is found in them becomes one result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from aegl.data.run_lengths import decode
from aegl.engine.backend import TorchBackend
from aegl.engine.predictor import predict
from aegl.engine.slicing import Slicing, Tile, merged, tiles_of
from aegl.engine.sources import Frame
from aegl.runtime.masks import paste_and_encode
from aegl.runtime.postprocess import ImageDetections
from aegl.types import Detections


@given(st.integers(1, 300), st.integers(1, 300), st.integers(8, 200), st.floats(0, 0.9))
def test_tiles_cover_every_pixel_and_stay_inside(height: int, width: int, side: int, overlap: float) -> None:
    tiles = tiles_of((height, width), Slicing(side, overlap))
    if max(height, width) <= side:
        assert tiles == []
        return
    seen = np.zeros((height, width), dtype=bool)
    for tile in tiles:
        assert 0 <= tile.top < tile.bottom <= height and 0 <= tile.left < tile.right <= width
        assert (tile.bottom - tile.top, tile.right - tile.left) == (min(side, height), min(side, width))
        seen[tile.top : tile.bottom, tile.left : tile.right] = True
    assert seen.all() and len(set(tiles)) == len(tiles)


def _found(size: tuple[int, int], *things: tuple[list[float], float, int]) -> ImageDetections:
    boxes = np.array([box for box, _, _ in things], dtype=np.float64).reshape(-1, 4)
    masks = paste_and_encode(np.ones((len(things), 4, 4), dtype=np.float32), boxes, *size)
    return ImageDetections(boxes, np.array([s for _, s, _ in things]), np.array([c for *_, c in things]), masks)


def test_an_object_seen_twice_is_one_and_other_classes_stay() -> None:
    tiles = [Tile(0, 0, 50, 50), Tile(0, 40, 50, 90)]
    whole = _found((50, 90), ([42, 10, 50, 20], 0.5, 0))
    inside = [
        _found((50, 50), ([42, 10, 50, 20], 0.9, 0)),
        _found((50, 50), ([2, 10, 10, 20], 0.6, 1), ([30, 30, 40, 40], 0.7, 0)),
    ]
    result = merged(whole, inside, tiles, (50, 90), max_det=10)
    assert list(zip(result.scores.tolist(), result.labels.tolist(), strict=True)) == [(0.9, 0), (0.7, 0), (0.6, 1)]
    assert result.boxes_orig[1].tolist() == [70, 30, 80, 40]  # moved to where its tile lies
    for box, mask in zip(result.boxes_orig.astype(int), result.masks, strict=True):
        ys, xs = np.nonzero(decode(mask))
        assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == box.tolist()
    assert len(merged(whole, inside, tiles, (50, 90), max_det=1)) == 1


class FindsLargeOnly(nn.Module):
    """Finds the white spot of an image where it is at least 8 pixels wide in the network input."""

    def forward(self, images: torch.Tensor) -> Detections:
        n = len(images)
        result = Detections(
            torch.zeros(n, 1, 4), torch.full((n, 1), 0.8), torch.zeros(n, 1, dtype=torch.int64), None,
            torch.zeros(n, dtype=torch.int64), torch.ones(n, dtype=torch.bool),
        )  # fmt: skip
        for row, image in enumerate(images):
            ys, xs = torch.nonzero(image.float().mean(0) > 200, as_tuple=True)
            if len(xs) and xs.max() - xs.min() >= 8:
                result.boxes[row, 0] = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
                result.num_detections[row] = 1
        return result


def test_what_is_small_in_the_whole_is_found_in_a_part(toy: Any) -> None:
    pixels = np.zeros((400, 400, 3), dtype=np.uint8)
    pixels[300:316, 120:136] = 255
    backend = TorchBackend(FindsLargeOnly(), toy.META)
    frame = Frame("x", lambda: pixels)
    (whole,) = predict(backend, [frame], conf=0.5, imgsz=64, max_size=64)
    (sliced,) = predict(backend, [frame], conf=0.5, imgsz=64, max_size=64, slicing=Slicing(100))
    assert len(whole) == 0 and len(sliced) == 1 and sliced.masks == []
    assert sliced.boxes_orig[0] == pytest.approx([120, 300, 136, 316], abs=4)
