"""What training does to an image and its objects. All chance comes from the generator that is passed in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Objects:
    """Ground truth of one image.

    Args:
        boxes: ``[G, 4]`` float32 x1 y1 x2 y2 in pixels of the image they belong to.
        labels: ``[G]`` int64 in ``0..C-1``.
        masks: ``[G, M, M]`` uint8 in {0, 1}, each over its own box.
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        """Number of objects ``G``."""
        return len(self.labels)

    def take(self, keep: np.ndarray) -> Objects:
        """The objects of a boolean mask or of indices."""
        return Objects(self.boxes[keep], self.labels[keep], self.masks[keep])

    def scaled(self, scale_y: float, scale_x: float) -> Objects:
        """The objects of the resized image; masks live in their boxes and stay as they are."""
        scale = np.array([scale_x, scale_y, scale_x, scale_y], dtype=np.float64)
        return Objects((self.boxes * scale).astype(np.float32), self.labels, self.masks)

    def flipped(self, width: int) -> Objects:
        """The objects of the image mirrored left to right; ``width`` is that of the image in pixels."""
        boxes = self.boxes.copy()
        boxes[:, 0::2] = width - self.boxes[:, 2::-2]
        return Objects(boxes, self.labels, self.masks[:, :, ::-1])


@dataclass(frozen=True)
class TrainTransform:
    """Random short side and horizontal flip.

    Args:
        short_sides: lengths of the short side, pixels, one of which is drawn.
        flip: probability of a flip.
    """

    short_sides: tuple[int, ...]
    flip: float

    def draw(self, rng: np.random.Generator) -> tuple[int, bool]:
        """Short side in pixels, and whether to flip. Always two draws, whatever the probabilities."""
        short_side = self.short_sides[int(rng.integers(len(self.short_sides)))]
        return short_side, bool(rng.random() < self.flip)


def flip_image(image: np.ndarray) -> np.ndarray:
    """``[h, w, 3]`` mirrored left to right (a view)."""
    return image[:, ::-1]
