"""Pasting objects of other images into a training image (the data side of FREESEG, Zhang et al., ECCV 2022).

What a pasted object covers is taken from the objects behind it, exactly: in pixels of the original image, before masks
are rasterised over their boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

from aegl.data.annotated import AnnotatedObjects
from aegl.data.masks import Segmentation, to_rle
from aegl.data.segments import OPAQUE, SegmentFolder


@dataclass(frozen=True)
class Placed:
    """A segment at its place in an image.

    Args:
        pixels: ``[h, w, 4]`` uint8 RGBA, not empty, wholly inside the image.
        top: row of its first pixel.
        left: column of its first pixel.
        label: its class.
    """

    pixels: np.ndarray
    top: int
    left: int
    label: int

    @property
    def where(self) -> tuple[slice, slice]:
        """The part of the image it lies over."""
        height, width = self.pixels.shape[:2]
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True)
class Paste:
    """Draws segments and pastes them.

    Args:
        segments: what there is to paste.
        probability: of pasting anything into an image.
        counts: smallest and largest number of segments, drawn uniformly.
        sizes: smallest and largest longer side of a segment as a share of the image's, drawn uniformly.
        min_visible: objects with a smaller share of their area left are dropped.
        flip: probability of mirroring a segment.
    """

    segments: SegmentFolder
    probability: float = 0.5
    counts: tuple[int, int] = (1, 3)
    sizes: tuple[float, float] = (0.1, 0.5)
    min_visible: float = 0.1
    flip: float = 0.5

    def __call__(
        self, image: np.ndarray, objects: AnnotatedObjects, rng: np.random.Generator
    ) -> tuple[np.ndarray, AnnotatedObjects]:
        """The image (``[h, w, 3]`` uint8; not changed in place) and its objects after pasting. All chance is ``rng``'s.

        Raises:
            DataError: if a segment's file can no longer be read.
        """
        if rng.random() >= self.probability:
            return image, objects
        placed = [self._draw(image.shape[:2], rng) for _ in range(rng.integers(*self.counts, endpoint=True))]
        return blend(image, placed), occlude(objects, placed, image.shape[:2], self.min_visible)

    def _draw(self, image_hw: tuple[int, int], rng: np.random.Generator) -> Placed:
        segment = self.segments.draw(rng)
        longer_side = rng.uniform(*self.sizes) * max(image_hw)
        flip = rng.random() < self.flip
        pixels = scale_to_fit(self.segments.load(segment), longer_side, image_hw)
        rows, columns = (limit - side + 1 for limit, side in zip(image_hw, pixels.shape, strict=False))
        top, left = int(rng.integers(rows)), int(rng.integers(columns))
        return Placed(pixels[:, ::-1] if flip else pixels, top, left, self.segments.label_of(segment))


def scale_to_fit(pixels: np.ndarray, longer_side: float, limit_hw: tuple[int, int]) -> np.ndarray:
    """A segment (``[h, w, 4]`` uint8 RGBA) resized, its ratio kept, to a longer side, less where it would not fit."""
    height, width = pixels.shape[:2]
    scale = min(longer_side / max(height, width), limit_hw[0] / height, limit_hw[1] / width)
    # Pillow weighs the colours by their alpha, so that none of the hidden ones comes in at the edge.
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def blend(image: np.ndarray, placed: Sequence[Placed]) -> np.ndarray:
    """A copy of ``image`` (``[h, w, 3]`` uint8) with segments over it, later ones in front, mixed by their alpha."""
    blended = image.copy()
    for segment in placed:
        alpha = segment.pixels[..., 3:].astype(np.uint32)
        behind = blended[segment.where]
        blended[segment.where] = (alpha * segment.pixels[..., :3] + (255 - alpha) * behind + 127) // 255
    return blended


def occlude(
    objects: AnnotatedObjects, placed: Sequence[Placed], image_hw: tuple[int, int], min_visible: float
) -> AnnotatedObjects:
    """The objects of an image and, after them, the pasted ones, each without what lies in front of it.

    An object of which nothing is covered stays as it is; the others get the mask that is left and a box tight around
    it. Dropped are those with less than ``min_visible`` of their area left, or with nothing; the area is that before
    anything was pasted, and of a pasted one that of the segment.
    """
    owner = np.zeros(image_hw, dtype=np.int32)  # of each pixel: number of the segment in front, 0 for none
    for number, segment in enumerate(placed, start=1):
        owner[segment.where][segment.pixels[..., 3] >= OPAQUE] = number
    free = _encode(owner == 0)
    boxes, labels, segmentations = [], [], []
    for box, label, segmentation in zip(objects.boxes, objects.labels, objects.segmentations, strict=True):
        left = _left_of(segmentation, box, owner, free, min_visible)
        if left is not None:
            boxes.append(left[0])
            labels.append(int(label))
            segmentations.append(left[1])
    for number, segment in enumerate(placed, start=1):
        visible = _encode(owner == number)
        area = int((segment.pixels[..., 3] >= OPAQUE).sum())
        if _enough(visible, area, min_visible):
            boxes.append(_tight_box(visible))
            labels.append(segment.label)
            segmentations.append(visible)
    return AnnotatedObjects(
        np.asarray(boxes, dtype=np.float64).reshape(-1, 4), np.asarray(labels, dtype=np.int64), segmentations
    )


def _left_of(
    segmentation: Segmentation, box: np.ndarray, owner: np.ndarray, free: dict[str, object], min_visible: float
) -> tuple[np.ndarray, Segmentation] | None:
    """Box and mask of an object once what is not ``free`` is covered; None if too little is left."""
    (left, top), (right, bottom) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    if not owner[top:bottom, left:right].any():  # most objects: their masks need not be made
        return box, segmentation
    mask = to_rle(segmentation, owner.shape)
    area = int(mask_utils.area(mask))
    if not area:  # thinner than a pixel: there as long as the pixel at its middle is
        covered = owner[(top + bottom - 1) // 2, (left + right - 1) // 2] > 0
        return None if covered else (box, segmentation)
    visible = mask_utils.merge([mask, free], intersect=True)
    if int(mask_utils.area(visible)) == area:
        return box, segmentation
    return (_tight_box(visible), visible) if _enough(visible, area, min_visible) else None


def _enough(visible: dict[str, object], area: int, min_visible: float) -> bool:
    left = int(mask_utils.area(visible))
    return left > 0 and left >= min_visible * area


def _tight_box(mask: dict[str, object]) -> np.ndarray:
    x, y, width, height = mask_utils.toBbox(mask)
    return np.array([x, y, x + width, y + height])


def _encode(mask: np.ndarray) -> dict[str, object]:
    return dict(mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8)))
