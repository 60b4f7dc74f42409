"""Detections on disk: what was written is read again, whatever interrupted the writing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aegl.errors import DataError, RunError
from aegl.metrics import DetectionTable, DetectionTableBuilder, shards

IMAGES = 7


@pytest.fixture
def store() -> Any:
    return SimpleNamespace(content_hash="abc", image_ids=np.arange(IMAGES) + 10)


def _detections(image: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, list[bytes]]:
    """None for image 3, three for the others."""
    rng = np.random.default_rng(image)
    n = 0 if image == 3 else 3
    masks = [b"0" * int(k) for k in rng.integers(1, 9, n)]
    return image, rng.integers(0, 5, n), rng.random(n), rng.random((n, 4)) * 100, masks


def _table(images: range | list[int]) -> DetectionTable:
    builder = DetectionTableBuilder(with_masks=True)
    for image in images:
        builder.append(*_detections(image))
    return builder.build()


def _write(folder: Path, store: Any, processes: int = 1) -> None:
    shards.create(folder, store)
    for rank in range(processes):
        with shards.ShardWriter(folder, rank) as writer:
            for image in range(rank, IMAGES, processes):
                writer.append(*_detections(image))


def _assert_same(a: DetectionTable, b: DetectionTable) -> None:
    for name in ("image_index", "label", "score", "boxes_xywh_orig"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    assert a.masks is not None and b.masks is not None
    assert a.masks.counts(slice(None)) == b.masks.counts(slice(None))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_detections_come_back_by_image_whatever_the_number_of_processes(
    processes: int, tmp_path: Path, store: Any
) -> None:
    _write(tmp_path / "d", store, processes)
    table, images = shards.read(tmp_path / "d", store)
    assert images == IMAGES
    _assert_same(table, _table(range(IMAGES)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), kind=st.sampled_from(["images", "records", "masks"]))
def test_a_torn_file_gives_the_images_that_are_whole(cut: float, kind: str, tmp_path: Path, store: Any) -> None:
    _write(tmp_path / "d", store)
    path = tmp_path / "d" / f"0.{kind}"
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content))])
    table, images = shards.read(tmp_path / "d", store)
    assert images == IMAGES if cut == 1 else images < IMAGES
    _assert_same(table, _table(range(images)))


def test_what_is_written_can_be_read_while_the_writer_is_alive(tmp_path: Path, store: Any) -> None:
    shards.create(tmp_path / "d", store)
    with shards.ShardWriter(tmp_path / "d", 0) as writer:
        for image in (4, 2):
            writer.append(*_detections(image))
        table, images = shards.read(tmp_path / "d", store)
    assert images == 2
    _assert_same(table, _table([2, 4]))


def test_a_new_evaluation_begins_with_nothing(tmp_path: Path, store: Any) -> None:
    _write(tmp_path / "d", store)
    shards.create(tmp_path / "d", store)
    table, images = shards.read(tmp_path / "d", store)
    assert (len(table), images) == (0, 0)


def test_shards_of_other_data_and_no_shards_are_refused(tmp_path: Path, store: Any) -> None:
    _write(tmp_path / "d", store)
    with pytest.raises(DataError, match="other data"):
        shards.read(tmp_path / "d", SimpleNamespace(content_hash="xyz", image_ids=store.image_ids))
    with pytest.raises(DataError, match="not a folder of detections"):
        shards.read(tmp_path, store)
    (tmp_path / "d" / shards.META_FILE).write_text('{"format": 99}')
    with pytest.raises(DataError, match="format 99"):
        shards.read(tmp_path / "d", store)


def test_a_disk_that_refuses_is_one_message(tmp_path: Path, store: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        shards.create(tmp_path / "file" / "d", store)
    with pytest.raises(RunError, match="cannot be written"):
        shards.ShardWriter(tmp_path / "nowhere", 0)
