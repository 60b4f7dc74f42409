"""Evaluation: a model that answers with the ground truth scores 1, whatever the sizes and the number of processes."""

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from aegl.engine.detections import read_detections
from aegl.engine.distributed import join_world
from aegl.engine.runs import SHARDS_FOLDER
from aegl.engine.scorer import Scorer
from aegl.engine.validator import validate
from aegl.errors import DataError, RunError
from aegl.metrics import DetectionTable
from aegl.types import Batch, Detections

SIZES = [(60, 80), (40, 30), (50, 50), (64, 64), (30, 90)]
SCALE = 2


class Quiet:
    """A progress display that remembers messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.done: dict[str, int] = {}
        self.totals: dict[str, int | None] = {}

    def start(self, name: str, total: int | None, unit: str) -> None:
        self.done[name], self.totals[name] = 0, total

    def update(self, n: int = 1, **fields: Any) -> None:
        self.done[list(self.done)[-1]] += n

    def message(self, text: str) -> None:
        self.messages.append(text)

    def finish(self) -> None: ...


def make_store() -> Any:
    """Two rectangles per image, of classes ``i % 3`` and ``(i + 1) % 3``."""
    boxes = [[5 + 2 * i + 10 * k, 4 + 6 * k, 10 + i, 12] for i in range(len(SIZES)) for k in range(2)]
    polygons = [np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], dtype=np.float64) for x, y, w, h in boxes]
    count = len(boxes)
    return SimpleNamespace(
        image_ids=np.arange(len(SIZES)) + 100,
        image_sizes=np.array(SIZES),
        ann_offsets=np.arange(0, count + 1, 2),
        ann_ids=np.arange(count) + 1,
        ann_labels=np.array([(i + k) % 3 for i in range(len(SIZES)) for k in range(2)]),
        ann_boxes_xywh=np.array(boxes, dtype=np.float64),
        ann_areas=np.array([w * h for _, _, w, h in boxes], dtype=np.float64),
        ann_crowd=np.zeros(count, dtype=bool),
        ann_ignore=np.zeros(count, dtype=bool),
        mask_kinds=np.ones(count, dtype=np.uint8),
        segmentation=lambda a: [polygons[a]],
        image_candidates=lambda i: [],
        neg_labels=lambda i: np.zeros(0, dtype=np.int64),
        not_exhaustive_labels=lambda i: np.zeros(0, dtype=np.int64),
        categories=SimpleNamespace(ids=np.array([3, 5, 8]), names=["ant", "bee", "cat"]),
        content_hash="abc",
        federated=False,
    )


class Oracle:
    """Answers with the ground truth of the image whose row is written into its first pixel."""

    def __init__(self, meta: Any) -> None:
        self.meta = meta
        self.store = make_store()

    def __call__(self, images: np.ndarray) -> Detections:
        rows = images[:, 0, 0, 0]
        boxes = torch.tensor(
            np.stack([self.store.ann_boxes_xywh[2 * r : 2 * r + 2] for r in rows]), dtype=torch.float32
        )
        boxes[..., 2:] += boxes[..., :2]
        labels = torch.tensor(np.stack([self.store.ann_labels[2 * r : 2 * r + 2] for r in rows]))
        n = len(rows)
        scores = torch.tensor([[0.9, 0.8]]).expand(n, 2).clone()
        masks = torch.ones(n, 2, 4, 4)
        return Detections(boxes * SCALE, scores, labels, masks, torch.full((n,), 2), torch.ones(n, dtype=torch.bool))


def batches(rank: int = 0, size: int = 1, images: int = len(SIZES)) -> Iterator[Batch]:
    for row in range(rank, images, size):
        orig = torch.tensor([SIZES[row]])
        pixels = torch.full((1, 3, 192, 192), row, dtype=torch.uint8)
        yield Batch(pixels, orig * SCALE, orig, torch.tensor([row]))


def scorer(store: Any, protocol: str = "coco") -> Scorer:
    bands = np.array([0, 1, 2])
    return Scorer(store, protocol=protocol, split="val", class_band=bands, band_names=("r", "c", "f"))


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
def test_ground_truth_scores_one(toy: ModuleType, tmp_path: Path, protocol: str) -> None:
    store, progress = make_store(), Quiet()
    options: dict[str, Any] = {"conf": 0.5, "max_det": 10, "folder": tmp_path, "progress": progress}
    summary = validate(Oracle(toy.META), batches(), store, scorer(store, protocol), **options)
    assert (summary["protocol"], summary["split"], summary["bands"]) == (protocol, "val", ["r", "c", "f"])
    for kind in ("box", "mask"):
        assert [summary[kind][figure] for figure in ("AP", "APr", "APc", "APf")] == pytest.approx([1.0] * 4)
    assert progress.done == progress.totals == {"val": 5, "score bbox": 3, "score segm": 3}
    assert "scoring 10 detections of 3 classes on 5 images" in progress.messages[0]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["ground_truth_hash"] == "abc"
    assert metrics["counts"]["detections"] == 10
    assert metrics["per_class"]["mask_AP"] == pytest.approx([1.0] * 3)
    rescored = scorer(store, protocol).score(
        DetectionTable.from_results_json(tmp_path / "predictions.json", store), folder=None, progress=Quiet()
    )
    assert rescored == summary


def test_boxes_only_file_has_no_mask_scores(tmp_path: Path) -> None:
    store = make_store()
    records = [
        {"image_id": 100 + a // 2, "category_id": (3, 5, 8)[store.ann_labels[a]], "bbox": list(box), "score": 0.5}
        for a, box in enumerate(store.ann_boxes_xywh)
    ]
    (tmp_path / "p.json").write_text(json.dumps(records))
    summary = scorer(store).score(
        DetectionTable.from_results_json(tmp_path / "p.json", store), folder=tmp_path, progress=Quiet()
    )
    assert (summary["box"]["AP"], summary["mask"]) == (pytest.approx(1.0), None)


def test_lost_images_and_foreign_classes_are_errors(toy: ModuleType, tmp_path: Path) -> None:
    store = make_store()
    options: dict[str, Any] = {"conf": 0.5, "max_det": 10, "folder": tmp_path, "progress": Quiet()}
    with pytest.raises(RunError, match="4 images were evaluated, the split has 5"):
        validate(Oracle(toy.META), batches(images=4), store, scorer(store), **options)
    foreign = Oracle(replace(toy.META, category_ids=(1, 2, 3)))
    with pytest.raises(DataError, match="the model knows 3 classes of toy"):
        validate(foreign, batches(), store, scorer(store), **options)


def _rank(meta: Any, folder: Path, rank: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    with join_world("cpu") as world:
        store = make_store()
        options: dict[str, Any] = {"conf": 0.5, "max_det": 10, "folder": folder, "progress": Quiet(), "world": world}
        summary = validate(Oracle(meta), batches(rank, 2), store, scorer(store), **options)
        assert world.broadcast_text(f"grüße von {rank}") == "grüße von 0"
    (folder / f"summary{rank}.json").write_text(json.dumps(summary))


def test_two_processes_give_the_same_file(toy: ModuleType, tmp_path: Path) -> None:
    store = make_store()
    alone = tmp_path / "alone"
    alone.mkdir()
    options: dict[str, Any] = {"conf": 0.5, "max_det": 10, "folder": alone, "progress": Quiet()}
    expected = validate(Oracle(toy.META), batches(), store, scorer(store), **options)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(toy.META, tmp_path, rank, port)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert json.loads((tmp_path / "summary0.json").read_text()) == expected
    assert json.loads((tmp_path / "summary1.json").read_text()) == {}
    assert (tmp_path / "predictions.json").read_text() == (alone / "predictions.json").read_text()
    assert not (tmp_path / SHARDS_FOLDER).exists()


class Interrupted(Oracle):
    """Is stopped in the fourth batch."""

    def __call__(self, images: np.ndarray) -> Detections:
        if images[0, 0, 0, 0] == 3:
            raise KeyboardInterrupt
        return super().__call__(images)


def test_an_interrupted_evaluation_loses_nothing_that_was_found(
    toy: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, progress = make_store(), Quiet()
    options: dict[str, Any] = {"conf": 0.5, "max_det": 10, "folder": tmp_path, "progress": Quiet()}
    with pytest.raises(KeyboardInterrupt):
        validate(Interrupted(toy.META), batches(), store, scorer(store), **options)
    table = read_detections(tmp_path, store, progress)
    assert table.image_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert "detections of 3 of 5 images only" in caplog.messages[-1]
    assert scorer(store).score(table, folder=None, progress=progress)["mask"]["AP"] < 1


def _killed_while_scoring(meta: Any, folder: Path) -> None:
    def kill(*args: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    store = make_store()
    judge = scorer(store)
    judge.score = kill  # type: ignore[method-assign]
    options: dict[str, Any] = {"conf": 0.5, "max_det": 10, "folder": folder, "progress": Quiet()}
    validate(Oracle(meta), batches(), store, judge, save_predictions=False, **options)


def test_an_evaluation_killed_while_scoring_is_scored_again_to_the_same_figures(
    toy: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    process = multiprocessing.get_context("fork").Process(target=_killed_while_scoring, args=(toy.META, killed))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    store = make_store()
    options: dict[str, Any] = {"conf": 0.5, "max_det": 10, "folder": whole, "progress": Quiet()}
    expected = validate(Oracle(toy.META), batches(), store, scorer(store), **options)
    for place in (killed, killed / SHARDS_FOLDER, whole, whole / "predictions.json"):
        progress = Quiet()
        table = read_detections(place, store, progress)
        assert scorer(store).score(table, folder=None, progress=progress) == expected
        assert not any("interrupted" in message for message in caplog.messages)


def test_a_folder_without_detections_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no predictions\.json and no detections/"):
        read_detections(tmp_path, make_store(), Quiet())
