"""Training and evaluation samples, and batches of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_utils

from aegl.data.categories import CategoryTable
from aegl.data.dataset import DetectionDataset, collate, resize_fast
from aegl.data.paste import Paste
from aegl.data.preprocess import Preprocess
from aegl.data.samplers import Key
from aegl.data.segments import open_segments
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


@pytest.fixture
def red(tmp_path) -> Paste:
    """Pastes one or two red squares of class 9 into every image."""
    place = tmp_path / "segments" / "9"
    place.mkdir(parents=True)
    Image.new("RGBA", (6, 6), (255, 0, 0, 255)).save(place / "x.png")
    categories = CategoryTable(np.arange(10), tuple("abcdefghij"))
    segments = open_segments(place.parent, categories, np.ones(10, dtype=np.int64))
    return Paste(segments, probability=1.0, counts=(1, 2), sizes=(0.2, 0.4))


def test_pasted_objects_and_their_pixels_stay_together(store, red) -> None:
    for flip in (0.0, 1.0):
        dataset = DetectionDataset(store, PREPROCESS, transform=TrainTransform((48,), flip), mask_size=14, paste=red)
        for position in range(20):
            sample = dataset[Key(0, position, 0)]
            is_red = (sample.image == [255, 0, 0]).all(axis=2)
            pasted = sample.objects.take(sample.objects.labels == 9)
            corners = pasted.boxes.astype(int)
            rows, columns = np.nonzero(is_red)
            assert corners[:, :2].min(axis=0).tolist() == [columns.min(), rows.min()]
            assert corners[:, 2:].max(axis=0).tolist() == [columns.max() + 1, rows.max() + 1]
            assert is_red[corners[-1, 1] : corners[-1, 3], corners[-1, 0] : corners[-1, 2]].all()  # in front
            assert pasted.masks[-1].all()


def test_pasting_depends_on_the_key_alone(store, red) -> None:
    dataset = DetectionDataset(store, PREPROCESS, transform=TrainTransform((40, 48), 0.5), mask_size=14, paste=red)

    def look(key: Key) -> tuple[bytes, list[list[float]], list[int]]:
        sample = dataset[key]
        return sample.image.tobytes(), sample.objects.boxes.tolist(), sample.objects.labels.tolist()

    key = Key(1, 5, 0)
    first = look(key)
    look(Key(0, 0, 2))
    assert look(key) == first == look(Key(1, 5, 0, focus=3))
    assert look(Key(1, 6, 0)) != first != look(Key(2, 5, 0))


def test_pasting_nothing_leaves_every_sample_as_it_was(store, red) -> None:
    transform = TrainTransform((40, 48, 56), 0.5)
    plain = DetectionDataset(store, PREPROCESS, transform=transform, mask_size=14)
    never = DetectionDataset(store, PREPROCESS, transform=transform, mask_size=14, paste=replace(red, probability=0.0))
    always = DetectionDataset(store, PREPROCESS, transform=transform, mask_size=14, paste=red)
    for position in range(12):
        key = Key(0, position, position % 3)
        before, after = plain[key], never[key]
        np.testing.assert_array_equal(before.image, after.image)
        np.testing.assert_array_equal(before.objects.boxes, after.objects.boxes)
        np.testing.assert_array_equal(before.objects.masks, after.objects.masks)
        assert before.image.shape == always[key].image.shape  # size and flip are drawn as without pasting


def test_an_image_without_objects_gets_pasted_ones(store, red) -> None:
    dataset = DetectionDataset(store, PREPROCESS, transform=AS_IS, mask_size=14, paste=red)
    assert set(dataset[1].objects.labels.tolist()) == {9}


def test_evaluation_pastes_nothing(store, red) -> None:
    plain, pasting = (DetectionDataset(store, PREPROCESS, paste=paste)[0].image for paste in (None, red))
    np.testing.assert_array_equal(plain, pasting)


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
    with pytest.raises(DataError, match=r"annotation 100: its mask's size is \[30, 40\], the image's .* is \[40, 40\]"):
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


def test_collate_tells_what_each_image_was_drawn_for(store) -> None:
    dataset = DetectionDataset(store, PREPROCESS, transform=AS_IS, mask_size=14)
    focus = collate([dataset[Key(0, 0, 0, focus=3)], dataset[Key(0, 1, 2)], dataset[2]], PREPROCESS).targets.focus
    assert focus.tolist() == [3, -1, -1] and focus.dtype == torch.int64


def test_collate_of_images_without_any_object(store) -> None:
    dataset = DetectionDataset(store, PREPROCESS, transform=AS_IS, mask_size=14)
    batch = collate([dataset[1], dataset[1]], PREPROCESS)
    assert batch.targets.masks.shape == (2, 0, 14, 14) and batch.targets.num_objects.tolist() == [0, 0]


def test_collate_without_targets(store) -> None:
    dataset = DetectionDataset(store, PREPROCESS)
    batch = collate([dataset[0]], PREPROCESS)
    assert batch.targets is None
    assert batch.images[0, :, -1, -1].tolist() == [1, 2, 3]


@pytest.mark.parametrize("size", [(75, 100), (20, 31), (40, 60)])
def test_training_resizes_like_pillow_to_one_grey_level(size) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image.flags.writeable = False
    exact = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    got = resize_fast(image, size)
    assert got.dtype == np.uint8 and got.shape == (*size, 3)
    assert np.abs(got.astype(int) - exact).max() <= 1
    assert (got != exact).mean() < 0.05
