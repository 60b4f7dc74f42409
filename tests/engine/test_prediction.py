"""The forms that a prediction converts to, and the files that are written of it."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from aegl.engine.prediction import Prediction
from aegl.engine.prediction_files import COCO_FILE, Kept, PredictionFiles
from aegl.engine.sources import Frame
from aegl.engine.video import VideoInfo, video_frames
from aegl.errors import ConfigError


@pytest.fixture
def prediction(toy: Any) -> Any:
    """Two detections in an image of 40 x 60, the first of class 2."""

    def make(name: str = "a/000012.jpg", *, masks: bool = True) -> Prediction:
        inside = np.zeros((40, 60), dtype=np.uint8, order="F")
        inside[10:20, 5:25] = 1
        rle = dict(coco_mask.encode(inside))
        return Prediction(
            Frame(name, lambda: np.full((40, 60, 3), 128, dtype=np.uint8)), (40, 60),
            np.array([[5.0, 10, 25, 20], [0, 0, 60, 40]]), np.array([0.9, 0.4]), np.array([2, 0]),
            [rle, rle] if masks else [], toy.META,
        )  # fmt: skip

    return make


def test_coco_records(prediction: Any, toy: Any) -> None:
    first, _ = prediction().to_coco()
    assert first["image_id"] == 12 and first["category_id"] == toy.META.category_ids[2]
    assert first["bbox"] == [5, 10, 20, 10] and first["score"] == 0.9
    assert coco_mask.decode(first["segmentation"]).sum() == 200
    assert prediction("a/b.jpg").to_coco()[0]["image_id"] == "b"
    assert prediction().to_coco(image_id=5)[0]["image_id"] == 5
    assert "segmentation" not in prediction(masks=False).to_coco()[0]


def test_yolo_lines(prediction: Any) -> None:
    assert prediction().to_yolo() == "2 0.25 0.375 0.333333 0.25 0.9\n0 0.5 0.5 1 1 0.4\n"


def test_pandas(prediction: Any, toy: Any) -> None:
    pytest.importorskip("pandas")
    frame = prediction().to_pandas()
    assert frame["name"].tolist() == [toy.META.names[2], toy.META.names[0]] and frame["x2"].tolist() == [25, 60]
    assert len(frame.iloc[:0].columns) == 10


def test_supervision(prediction: Any, toy: Any) -> None:
    pytest.importorskip("supervision")
    found = prediction().to_supervision()
    assert found.mask.shape == (2, 40, 60) and found.mask[0].sum() == 200
    assert found.class_id.tolist() == [2, 0] and found.data["class_name"].tolist()[0] == toy.META.names[2]
    assert prediction(masks=False).to_supervision().mask is None


def test_a_package_that_is_missing_is_named(prediction: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ConfigError, match="pip install supervision"):
        prediction().to_supervision()


def test_crops_are_what_is_in_the_boxes(prediction: Any) -> None:
    assert [picture.size for picture in prediction().crops()] == [(20, 10), (60, 40)]


def test_files_of_images(prediction: Any, tmp_path: Path) -> None:
    with PredictionFiles(tmp_path, Kept(labels=True, coco=True, crops=True)) as files:
        files.add(prediction("a/x.jpg"))
        files.add(prediction("b/x.png"))
    assert {path.name for path in tmp_path.glob("*.jpg")} == {"x.jpg", "x-2.jpg"}
    assert {path.name for path in (tmp_path / "labels").iterdir()} == {"x.txt", "x-2.txt"}
    assert len(list((tmp_path / "crops").rglob("*.jpg"))) == 4
    assert len(json.loads((tmp_path / COCO_FILE).read_text())) == 4
    assert [image["path"] for image in json.loads((tmp_path / "predictions.json").read_text())] == [
        "a/x.jpg",
        "b/x.png",
    ]


def test_a_video_is_drawn_as_a_video_and_kept_when_it_is_stopped(prediction: Any, tmp_path: Path) -> None:
    pytest.importorskip("av")
    with (
        pytest.raises(KeyboardInterrupt),
        PredictionFiles(tmp_path, Kept(), VideoInfo(Fraction(5), None)) as files,
    ):
        files.add(prediction("v.mp4#0"))
        files.add(prediction("v.mp4#1"))
        raise KeyboardInterrupt
    assert len(list(video_frames(str(tmp_path / "v.mp4")))) == 2
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 2
    assert not list(tmp_path.glob("*.jpg"))


def test_nothing_drawn_where_nothing_is_wanted(prediction: Any, tmp_path: Path) -> None:
    with PredictionFiles(tmp_path, Kept(images=False)) as files:
        files.add(prediction())
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]


def test_the_drawing_is_an_image(prediction: Any) -> None:
    assert isinstance(prediction(masks=False).draw(), Image.Image)
