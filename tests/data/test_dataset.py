"""Training and evaluation samples, and batches of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_utils

from aegl.data.dataset import DetectionDataset, collate
from aegl.data.preprocess import Preprocess
from aegl.data.transforms import TrainTransform
from aegl.errors import DataError

PREPROCESS = Preprocess(imgsz=64, max_size=128, stride=32, pad_value=(1, 2, 3))
AS_IS = TrainTransform((48,), 0.0)
"""No flip; the short side of the first image."""


def square(x: float, y: float, side: float) -> list[np.ndarray]:
    return [np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])]


def store_of(folder, sizes, annotations) -> SimpleNamespace:
    """An annotation store of (image, label, box, crowd, segmentation) rows, sorted by image."""
    paths = []
    for k, (height, width) in enumerate(sizes):
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[10:20, 5:15] = 255  # where the first object of each image stands
        paths.append(folder / f"{k}.png")
        Image.fromarray(pixels).save(paths[-1])
    counts = np.bincount([a[0] for a in annotations], minlength=len(sizes))
    return SimpleNamespace(
        image_ids=np.arange(len(sizes)),
        image_sizes=np.array(sizes),
        image_path=paths.__getitem__,
        ann_offsets=np.concatenate([[0], np.cumsum(counts)]),
        ann_ids=100 + np.arange(len(annotations)),
        ann_labels=np.array([a[1] for a in annotations]),
        ann_boxes_xywh=np.array([a[2] for a in annotations], dtype=np.float64).reshape(-1, 4),
        ann_crowd=np.array([a[3] for a in annotations], dtype=bool),
        segmentation=lambda a: annotations[a][4],
    )


@pytest.fixture
def store(tmp_path) -> SimpleNamespace:
    half = np.zeros((48, 60), dtype=np.uint8)
    half[20:30, 10:15] = 1  # the left half of its box
    return store_of(
        tmp_path,
        [(48, 60), (40, 40), (32, 64)],
        [
            (0, 3, [5, 10, 10, 10], False, square(5, 10, 10)),
            (0, 1, [10, 20, 10, 10], False, mask_utils.encode(np.asfortranarray(half))),
            (0, 2, [0, 0, 50, 40], True, mask_utils.encode(np.asfortranarray(half))),
            (0, 4, [70, 10, 5, 5], False, square(70, 10, 5)),
            (0, 5, [50, 40, 30, 30], False, square(50, 40, 30)),
            (2, 7, [5, 10, 10, 10], False, square(5, 10, 10)),
        ],
    )


def test_objects_of_an_image_as_it_is(store) -> None:
    sample = DetectionDataset(store, PREPROCESS, transform=AS_IS, mask_size=20)[0]
    objects = sample.objects
    assert sample.image.shape == (48, 60, 3) and sample.orig_size == (48, 60) and sample.image_index == 0
    assert objects.labels.tolist() == [3, 1, 5]  # neither the crowd nor the box outside
    assert objects.boxes.tolist() == [[5, 10, 15, 20], [10, 20, 20, 30], [50, 40, 60, 48]]
    assert objects.boxes.dtype == np.float32 and objects.masks.dtype == np.uint8
    assert objects.masks[0].all() and objects.masks[2].all()
    assert objects.masks[1, :, :10].all() and not objects.masks[1, :, 10:].any()


def test_flip_and_resize_keep_image_and_boxes_together(store) -> None:
    dataset = DetectionDataset(store, PREPROCESS, transform=TrainTransform((96,), 1.0), mask_size=20)
    sample = dataset[0]
    assert sample.image.shape == (96, 120, 3)
    rows, columns = np.nonzero(sample.image[..., 0] > 127)
    assert sample.objects.boxes[0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert sample.objects.masks[1, :, 10:].all() and not sample.objects.masks[1, :, :10].any()


def test_image_without_objects(store) -> None:
    objects = DetectionDataset(store, PREPROCESS, transform=AS_IS, mask_size=14)[1].objects
    assert objects.boxes.shape == (0, 4) and objects.masks.shape == (0, 14, 14) and objects.labels.dtype == np.int64


def test_evaluation_has_the_test_size_and_no_targets(store) -> None:
    sample = DetectionDataset(store, PREPROCESS)[2]
    assert sample.image.shape == (64, 128, 3) and sample.objects is None


def test_augmentation_depends_on_seed_epoch_position_and_image_alone(store) -> None:
    transform = TrainTransform(tuple(range(33, 97)), 0.5)

    def look(key, seed: int = 0):
        sample = DetectionDataset(store, PREPROCESS, transform=transform, seed=seed)[key]
        return sample.image.shape, sample.objects.boxes.tolist()

    assert look((3, 5, 0)) == look((3, 5, 0))
    others = [look((4, 5, 0)), look((3, 6, 0)), look((3, 5, 0), seed=1)]
    assert sum(other != look((3, 5, 0)) for other in others) >= 2
    assert len({look((0, p, 0))[0] for p in range(40)}) > 20


def test_boxes_too_thin_at_the_network_are_dropped(tmp_path) -> None:
    store = store_of(tmp_path, [(1000, 1000)], [(0, 0, [5, 5, 0.05, 50], False, square(5, 5, 50))])
    assert len(DetectionDataset(store, PREPROCESS, transform=TrainTransform((1000,), 0.0))[0].objects) == 0


def test_missing_image_is_named(store) -> None:
    store.image_path(1).unlink()
    with pytest.raises(DataError, match=r"1\.png does not exist"):
        DetectionDataset(store, PREPROCESS)[1]


def test_image_of_another_size_is_refused(store) -> None:
    store.image_sizes[1] = (40, 41)
    with pytest.raises(DataError, match=r"1\.png is 40 x 40 pixels, but its annotations say 41 x 40"):
        DetectionDataset(store, PREPROCESS)[1]


@pytest.mark.parametrize("nothing", [None, []])
def test_object_without_mask_is_named(tmp_path, nothing) -> None:
    store = store_of(tmp_path, [(40, 40)], [(0, 0, [5, 5, 10, 10], False, nothing)])
    with pytest.raises(DataError, match="annotation 100 has no mask"):
        DetectionDataset(store, PREPROCESS, transform=AS_IS)[0]


def test_rle_of_another_size_is_named(tmp_path) -> None:
    rle = mask_utils.encode(np.ones((30, 40), dtype=np.uint8, order="F"))
    store = store_of(tmp_path, [(40, 40)], [(0, 0, [5, 5, 10, 10], False, rle)])
    with pytest.raises(DataError, match=r"annotations 100 .*size"):
        DetectionDataset(store, PREPROCESS, transform=AS_IS)[0]


def test_collate_pads_images_and_targets(store) -> None:
    dataset = DetectionDataset(store, PREPROCESS, transform=AS_IS, mask_size=14)
    samples = [dataset[k] for k in range(3)]
    batch = collate(samples, PREPROCESS)
    assert batch.images.shape == (3, 3, 64, 96) and batch.images.dtype == torch.uint8
    assert batch.sizes.tolist() == [[48, 60], [48, 48], [48, 96]]
    assert batch.orig_sizes.tolist() == [[48, 60], [40, 40], [32, 64]]
    assert batch.image_index.tolist() == [0, 1, 2]
    targets = batch.targets
    assert targets.num_objects.tolist() == [3, 0, 1]
    assert targets.labels.tolist() == [[3, 1, 5], [-1, -1, -1], [7, -1, -1]]
    assert targets.boxes.shape == (3, 3, 4) and targets.boxes.dtype == torch.float32
    assert targets.masks.shape == (3, 3, 14, 14) and targets.masks.dtype == torch.uint8
    assert torch.equal(targets.masks[0], torch.from_numpy(samples[0].objects.masks.copy()))
    assert not targets.boxes[1].any() and not targets.masks[2, 1:].any()


def test_collate_of_images_without_any_object(store) -> None:
    dataset = DetectionDataset(store, PREPROCESS, transform=AS_IS, mask_size=14)
    batch = collate([dataset[1], dataset[1]], PREPROCESS)
    assert batch.targets.masks.shape == (2, 0, 14, 14) and batch.targets.num_objects.tolist() == [0, 0]


def test_collate_without_targets(store) -> None:
    dataset = DetectionDataset(store, PREPROCESS)
    batch = collate([dataset[0]], PREPROCESS)
    assert batch.targets is None
    assert batch.images[0, :, -1, -1].tolist() == [1, 2, 3]
