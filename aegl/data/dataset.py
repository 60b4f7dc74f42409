"""Images with their training targets, and batches of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset, get_worker_info

from aegl.data.annotated import annotated_image, annotated_objects
from aegl.data.masks import rasterize_in_boxes
from aegl.data.paste import Paste
from aegl.data.preprocess import Preprocess
from aegl.data.samplers import NO_FOCUS, Key
from aegl.data.transforms import Objects, TrainTransform, flip_image
from aegl.types import Batch, Targets

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore

_STREAM = 0xA06  # keeps the augmentation's random streams apart from all others that use the same seed
_MIN_SIDE = 0.01  # pixels of the network input: a box thinner than this is no box


@dataclass(frozen=True)
class Sample:
    """One image as the network gets it, before padding.

    Args:
        image: ``[h, w, 3]`` uint8 RGB.
        orig_size: height and width of the file's image.
        image_index: row of the image in the store.
        objects: its ground truth in pixels of ``image``; None when evaluating.
        verified: ``[C]`` bool, classes of which it holds no more than is annotated; None when not asked for.
        focus: class for whose sake it was drawn, or -1.
    """

    image: np.ndarray
    orig_size: tuple[int, int]
    image_index: int
    objects: Objects | None = None
    verified: np.ndarray | None = None
    focus: int = NO_FOCUS


class DetectionDataset(Dataset[Sample]):
    """The images of a store.

    A training sample is asked for by :class:`aegl.data.samplers.Key`; its augmentation depends on the seed and that key
    alone, hence not on the number of workers or processes nor on where a run was resumed. Crowd annotations are no
    training targets; boxes are clipped to the image and dropped if nothing is left. An image may have no objects.

    Args:
        store: annotations.
        preprocess: resizing and padding.
        transform: augmentation; None gives samples without targets at the test size.
        mask_size: side ``M`` of the mask rasters.
        seed: of the augmentation.
        with_verified: tell with every training sample which classes are verified in it.
        paste: pastes objects of other images into training images; None for nothing.
        box_masks: an object without a mask has its box for one.
    """

    def __init__(
        self,
        store: AnnotationStore,
        preprocess: Preprocess,
        *,
        transform: TrainTransform | None = None,
        mask_size: int = 56,
        seed: int = 0,
        with_verified: bool = False,
        paste: Paste | None = None,
        box_masks: bool = False,
    ) -> None:
        self.store = store
        self.preprocess = preprocess
        self.transform = transform
        self.mask_size = mask_size
        self.seed = seed
        self.with_verified = with_verified
        self.paste = paste
        self.box_masks = box_masks

    def __len__(self) -> int:
        """Number of images ``I``."""
        return len(self.store.image_ids)

    def __getitem__(self, key: int | Key) -> Sample:
        """The image of an index (epoch 0, position = index) or of a sampler's key.

        Raises:
            UnreadableImageError: for an image that cannot be read.
            DataError: for one that has another size than its annotations say, or an object without a usable mask.
        """
        key = Key(0, int(key), int(key)) if isinstance(key, int | np.integer) else Key(*key)
        image = self._load(key.image)
        height, width = image.shape[:2]
        if self.transform is None:
            return Sample(self.preprocess.resize(image)[0], (height, width), key.image)
        rng = np.random.default_rng([_STREAM, self.seed, key.epoch, key.position, key.image])
        short_side, flip = self.transform.draw(rng)
        annotated = annotated_objects(self.store, key.image, box_masks=self.box_masks)
        if self.paste is not None:
            image, annotated = self.paste(image, annotated, rng)
        image = resize_fast(image, self.preprocess.target_size(height, width, short_side))
        scale_y, scale_x = image.shape[0] / height, image.shape[1] / width
        masks = rasterize_in_boxes(annotated.segmentations, annotated.boxes, self.mask_size, (height, width))
        objects = Objects(annotated.boxes, annotated.labels, masks).scaled(scale_y, scale_x)
        objects = objects.take((objects.boxes[:, 2:] - objects.boxes[:, :2] >= _MIN_SIDE).all(axis=1))
        if flip:
            image, objects = flip_image(image), objects.flipped(image.shape[1])
        verified = self.store.verified(key.image) if self.with_verified else None
        return Sample(image, (height, width), key.image, objects, verified, key.focus)

    def _load(self, index: int) -> np.ndarray:
        return annotated_image(self.store, index)


def resize_fast(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize like :meth:`Preprocess.resize`, in a third of the time; for training.

    torch has Pillow's filter for 8-bit images too; its weights have fewer bits, so about one value in a hundred differs
    by one. What is evaluated is resized by Pillow everywhere, so that a runtime without torch gives the same.

    Args:
        image: ``[h, w, 3]`` uint8.
        size: height and width of the result.
    """
    if image.shape[:2] == size:
        return image
    # An array made from a Pillow image is read-only, which torch warns of; the copy takes a hundredth of the time.
    pixels = torch.from_numpy(image if image.flags.writeable else image.copy())
    resized = interpolate(pixels.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def collate(samples: Sequence[Sample], preprocess: Preprocess) -> Batch:
    """Pad samples to one canvas and, when they have targets, to one number of objects.

    In a loader's worker the canvas is made in shared memory at once, where it would have to be copied to otherwise.

    Args:
        samples: at least one; all with objects or all without.
        preprocess: says how to pad.
    """
    return Batch(
        images=_padded([s.image for s in samples], preprocess),
        sizes=torch.tensor([s.image.shape[:2] for s in samples], dtype=torch.int64),
        orig_sizes=torch.tensor([s.orig_size for s in samples], dtype=torch.int64),
        image_index=torch.tensor([s.image_index for s in samples], dtype=torch.int64),
        targets=_collate_targets(samples),
    )


def _padded(images: Sequence[np.ndarray], preprocess: Preprocess) -> Tensor:
    if get_worker_info() is None:
        return torch.from_numpy(preprocess.pad_batch(images))
    shape = (len(images), 3, *preprocess.canvas_size([(i.shape[0], i.shape[1]) for i in images]))
    memory = torch.UntypedStorage._new_shared(math.prod(shape))
    canvas = torch.empty(0, dtype=torch.uint8).set_(memory).view(shape)
    preprocess.pad_batch(images, out=canvas.numpy())
    return canvas


def _collate_targets(samples: Sequence[Sample]) -> Targets | None:
    objects = [s.objects for s in samples if s.objects is not None]
    if not objects:
        return None
    verified = [s.verified for s in samples if s.verified is not None]
    most = max(len(o) for o in objects)
    mask_side = objects[0].masks.shape[-1]
    boxes = np.zeros((len(objects), most, 4), dtype=np.float32)
    labels = np.full((len(objects), most), -1, dtype=np.int64)
    masks = np.zeros((len(objects), most, mask_side, mask_side), dtype=np.uint8)
    for row, o in enumerate(objects):
        boxes[row, : len(o)], labels[row, : len(o)], masks[row, : len(o)] = o.boxes, o.labels, o.masks
    return Targets(
        boxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(labels),
        masks=torch.from_numpy(masks),
        num_objects=torch.tensor([len(o) for o in objects], dtype=torch.int64),
        verified=torch.from_numpy(np.stack(verified)) if verified else None,
        focus=torch.tensor([s.focus for s in samples], dtype=torch.int64),
    )
