"""Batches from worker processes: order, shares, resuming, and errors as one message."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from aegl.data.class_balanced import class_balanced
from aegl.data.dataset import DetectionDataset
from aegl.data.loader import eval_loader, train_loader
from aegl.data.preprocess import Preprocess
from aegl.data.samplers import EpochSampler, RepeatFactors
from aegl.data.transforms import TrainTransform
from aegl.errors import DataError

NUM_IMAGES = 11
TARGETS = ("boxes", "labels", "masks", "num_objects", "focus")


class SquareStore(SimpleNamespace):
    """One white square per image, at a place of its own."""

    def __init__(self, folder) -> None:
        rng = np.random.default_rng(0)
        corners = rng.integers(0, 20, (NUM_IMAGES, 2))
        super().__init__(
            folder=folder,
            image_ids=np.arange(NUM_IMAGES),
            image_sizes=np.full((NUM_IMAGES, 2), 32),
            ann_offsets=np.arange(NUM_IMAGES + 1),
            ann_ids=np.arange(NUM_IMAGES),
            ann_labels=np.arange(NUM_IMAGES) % 3,
            ann_boxes_xywh=np.concatenate([corners, np.full((NUM_IMAGES, 2), 10)], axis=1).astype(float),
            ann_crowd=np.zeros(NUM_IMAGES, dtype=bool),
        )
        for k, (x, y) in enumerate(corners):
            pixels = np.zeros((32, 32, 3), dtype=np.uint8)
            pixels[y : y + 10, x : x + 10] = 255
            Image.fromarray(pixels).save(self.image_path(k))

    def image_path(self, index: int):
        return self.folder / f"{index}.png"

    def segmentation(self, annotation: int):
        x, y, w, h = self.ann_boxes_xywh[annotation]
        return [np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])]


PREPROCESS = Preprocess(imgsz=32, max_size=64, stride=32, pad_value=(0, 0, 0))


@pytest.fixture
def store(tmp_path) -> SquareStore:
    return SquareStore(tmp_path)


@pytest.fixture
def training(store) -> DetectionDataset:
    return DetectionDataset(store, PREPROCESS, transform=TrainTransform((32, 40, 48), 0.5), mask_size=14)


def sampler(**options) -> EpochSampler:
    return EpochSampler(RepeatFactors.uniform(NUM_IMAGES), 3, seed=5, **options)


def look(batches) -> list:
    return [(b.image_index.tolist(), b.images.sum().item(), b.targets.boxes.tolist()) for b in batches]


def test_batches_do_not_depend_on_workers(training) -> None:
    runs = [list(itertools.islice(train_loader(training, sampler(), workers=n), 9)) for n in (0, 1, 3)]
    for none, one, three in zip(*runs, strict=True):
        for other in (one, three):
            assert torch.equal(none.images, other.images) and torch.equal(none.image_index, other.image_index)
            assert all(torch.equal(getattr(none.targets, k), getattr(other.targets, k)) for k in TARGETS)


def test_resumed_run_sees_the_same_batches(training) -> None:
    whole = look(itertools.islice(train_loader(training, sampler(), workers=0), 9))
    rest = look(itertools.islice(train_loader(training, sampler(), workers=0, consumed_batches=4), 5))
    assert rest == whole[4:]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_class_that_an_image_was_drawn_for_arrives_with_it(store, training, workers: int) -> None:
    stream = EpochSampler(class_balanced(store, 3, NUM_IMAGES), 3)
    batches = list(itertools.islice(train_loader(training, stream, workers), 5))
    focus = [batch.targets.focus for batch in batches]
    assert all(torch.equal(f, b.targets.labels[:, 0]) for f, b in zip(focus, batches, strict=True))
    keys = list(itertools.chain(*itertools.islice(stream.batches(), 5)))
    assert torch.cat(focus).tolist() == [key.focus for key in keys]
    assert all(f.tolist() == [-1] * 3 for f in [next(iter(train_loader(training, sampler(), 0))).targets.focus])


def test_training_and_evaluation_leave_the_global_random_state_alone(training) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(itertools.islice(train_loader(training, sampler(), workers=0), 3))
    list(eval_loader(training, 4, workers=0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_every_image_once(store, world_size: int) -> None:
    dataset = DetectionDataset(store, PREPROCESS)
    loaders = [eval_loader(dataset, 4, 0, rank=r, world_size=world_size) for r in range(world_size)]
    seen = [batch.image_index.tolist() for loader in loaders for batch in loader]
    assert sorted(itertools.chain(*seen)) == list(range(NUM_IMAGES))
    assert sum(map(len, loaders)) == len(seen)
    assert all(batch.targets is None for batch in loaders[0])


def test_evaluation_can_be_repeated_with_workers(store) -> None:
    loader = eval_loader(DetectionDataset(store, PREPROCESS), 4, workers=1)
    first, second = ([b.image_index.tolist() for b in loader] for _ in range(2))
    assert first == second == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_gives_one_message(store, workers: int) -> None:
    store.image_path(6).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"6\.png cannot be read") as caught:
        list(eval_loader(DetectionDataset(store, PREPROCESS), 4, workers=workers))
    assert "Traceback" not in str(caught.value) and "worker" not in str(caught.value)
    assert caught.value.__cause__ is None
