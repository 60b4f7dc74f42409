"""Images that cannot be read, workers that are killed, loaders that hang: one message or another image instead."""

import itertools
import logging
import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from aegl.data import loader as loader_module
from aegl.data.aspect import aspect_groups
from aegl.data.dataset import DetectionDataset
from aegl.data.faults import lost_worker
from aegl.data.loader import BatchLoader, eval_loader, train_loader
from aegl.data.preprocess import Preprocess
from aegl.data.samplers import EpochSampler, Key, RepeatFactors
from aegl.data.transforms import TrainTransform
from aegl.errors import DataError, RunError

from .test_loader import NUM_IMAGES, PREPROCESS, SquareStore, look, sampler

BAD = (2, 7)


@pytest.fixture
def store(tmp_path) -> SquareStore:
    return SquareStore(tmp_path)


@pytest.fixture
def training(store) -> DetectionDataset:
    return DetectionDataset(store, PREPROCESS, transform=TrainTransform((32, 40, 48), 0.5), mask_size=14)


@pytest.fixture
def spoilt(store) -> SquareStore:
    """One truncated JPEG and one missing file."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(store.image_path(BAD[0]), format="JPEG")
    whole = store.image_path(BAD[0]).read_bytes()
    store.image_path(BAD[0]).write_bytes(whole[: len(whole) // 2])
    store.image_path(BAD[1]).unlink()
    return store


def batches_of(training, workers: int, count: int = 9, start: int = 0, limit: int = 2) -> list:
    loader = train_loader(training, sampler(), workers, consumed_batches=start, max_bad_images=limit)
    return list(itertools.islice(loader, count))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_first_bad_image_ends_training_by_default(spoilt, training, workers: int) -> None:
    with pytest.raises(DataError, match=r"(2|7)\.png .*\(image id (2|7)\); .*max_bad_images") as caught:
        batches_of(training, workers, limit=0)
    assert "\n" not in str(caught.value)


def test_bad_images_are_replaced_whatever_the_number_of_workers(spoilt, training) -> None:
    seen = [look(batches_of(training, workers)) for workers in (0, 1, 3)]
    assert seen[0] == seen[1] == seen[2]
    shown = set(itertools.chain(*(images for images, *_ in seen[0])))
    assert shown == set(range(NUM_IMAGES)) - set(BAD)


def test_a_resumed_run_replaces_them_by_the_same(spoilt, training) -> None:
    assert look(batches_of(training, 0, 5, start=4)) == look(batches_of(training, 0))[4:]


def test_good_images_stay_where_they_were(store, training) -> None:
    before = look(batches_of(training, 0))
    store.image_path(2).unlink()
    after = look(batches_of(training, 0))
    unchanged = [a == b for a, b in zip(before, after, strict=True) if 2 not in a[0]]
    assert unchanged and all(unchanged)


def test_each_bad_image_is_logged_once(spoilt, training, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="aegl"):
        batches_of(training, 1, count=20)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert any("2.png cannot be read: " in m and "image id 2" in m for m in messages)
    assert any("7.png does not exist" in m for m in messages)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_more_than_the_limit_ends_training_and_names_all(spoilt, training, workers: int) -> None:
    with pytest.raises(DataError, match=r"2 images cannot be read, max_bad_images=1") as caught:
        batches_of(training, workers, limit=1)
    assert "2.png" in str(caught.value) and "7.png" in str(caught.value)


def test_nothing_readable_at_all(store, training) -> None:
    store.source = "the annotations"
    for image in range(NUM_IMAGES):
        store.image_path(image).unlink()
    with pytest.raises(DataError, match="no training image in the annotations can be read"):
        batches_of(training, 0, limit=100)


def test_evaluation_replaces_nothing(spoilt) -> None:
    with pytest.raises(DataError, match=r"2\.png cannot be read"):
        list(eval_loader(DetectionDataset(spoilt, PREPROCESS), 4, workers=0))


def test_substitutes_are_other_images_of_the_epoch_and_like_shapes_come_first() -> None:
    sizes = np.array([[3, 4], [4, 3]] * 5)
    stream = EpochSampler(RepeatFactors.uniform(10), 2, groups=aspect_groups(sizes))
    found = [key.image for key in stream.substitutes(Key(0, 3, 4))]
    assert sorted(found) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert sorted(found[:4]) == [0, 2, 6, 8]
    assert found == [key.image for key in stream.substitutes(Key(0, 3, 4))]
    assert {tuple(k.image for k in itertools.islice(stream.substitutes(Key(0, p, 4)), 1)) for p in range(10)} != {(0,)}


class KilledDataset(DetectionDataset):
    """Its worker dies like by the kernel's hand when it comes to the fourth image."""

    deadly = signal.SIGKILL

    def __getitem__(self, key: int | Key):
        if key == 3:
            os.kill(os.getpid(), self.deadly)
        return super().__getitem__(key)


@pytest.mark.parametrize(
    ("deadly", "words"), [(signal.SIGKILL, "ran out of memory: lower workers=2"), (signal.SIGTERM, "by signal 15")]
)
def test_a_killed_worker_gives_one_message(store, monkeypatch, deadly, words: str) -> None:
    monkeypatch.setattr(loader_module, "_POLL_SECONDS", 0.2)
    dataset = KilledDataset(store, PREPROCESS)
    dataset.deadly = deadly
    with pytest.raises(RunError, match=words) as caught:
        list(BatchLoader(dataset, [[k] for k in range(NUM_IMAGES)], 2))
    assert "\n" not in str(caught.value)


def test_a_worker_that_dies_while_the_trainer_works_is_told_when_it_waits(store, monkeypatch) -> None:
    monkeypatch.setattr(loader_module, "_POLL_SECONDS", 0.2)
    loader = BatchLoader(DetectionDataset(store, PREPROCESS), [[k % 5] for k in range(99)], 1)
    batches = iter(loader)
    next(batches)
    (worker,) = (
        loader._loader._iterator._workers if loader._loader._iterator else torch.multiprocessing.active_children()
    )
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(5)
    time.sleep(0.3)  # the work of a step, which torch's own handler would interrupt
    with pytest.raises(RunError, match="was killed"):
        list(batches)


def test_a_bus_error_is_put_down_to_shared_memory() -> None:
    assert "/dev/shm" in str(lost_worker(-signal.SIGBUS, 4)) and "workers=4" in str(lost_worker(-signal.SIGBUS, 4))
    assert "exit code 3" in str(lost_worker(3, 1))


class NoRoomPreprocess(Preprocess):
    """Padding finds the shared memory full, as torch tells it."""

    def pad_batch(self, images, out=None):
        raise RuntimeError("unable to write to file </torch_12_34_0>: No space left on device (28)")


def test_full_shared_memory_gives_one_message(store) -> None:
    dataset = DetectionDataset(store, NoRoomPreprocess(32, 64, 32, (0, 0, 0)))
    with pytest.raises(RunError, match=r"/dev/shm is full or too small.*--shm-size"):
        list(BatchLoader(dataset, [[0]], 1))


class SleepingDataset(DetectionDataset):
    """Its fourth image never comes."""

    def __getitem__(self, key: int | Key):
        if key == 3:
            time.sleep(60)
        return super().__getitem__(key)


def test_a_loader_that_hangs_names_the_images_it_waits_for(store) -> None:
    loader = BatchLoader(SleepingDataset(store, PREPROCESS), [[0, 1], [2, 3], [4, 5]], 1, timeout=1)
    seen: list[list[int]] = []

    def collect(batches: Iterator) -> None:
        seen.extend(batch.image_index.tolist() for batch in batches)

    with pytest.raises(RunError, match=r"no batch came for 1 seconds \(loader_timeout\)") as caught:
        collect(iter(loader))
    assert seen == [[0, 1]]
    named = str(caught.value).splitlines()[1:]
    assert [line.rsplit("/")[-1] for line in named] == ["2.png", "3.png"]


class SlowDataset(DetectionDataset):
    """Its images take longer than the loader looks after its workers."""

    def __getitem__(self, key: int | Key):
        time.sleep(0.3)
        return super().__getitem__(key)


def test_slow_images_are_waited_for(store, monkeypatch) -> None:
    monkeypatch.setattr(loader_module, "_POLL_SECONDS", 0.05)
    loader = BatchLoader(SlowDataset(store, PREPROCESS), [[0], [1]], 1, timeout=30)
    assert [batch.image_index.tolist() for batch in loader] == [[0], [1]]
