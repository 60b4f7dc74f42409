"""What a model found in one picture, and the forms that other tools want it in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from aegl.data.run_lengths import decode
from aegl.engine.sources import Frame
from aegl.errors import ConfigError
from aegl.metadata import ModelMeta
from aegl.plots.draw import draw_detections
from aegl.runtime.postprocess import ImageDetections, detections_json

if TYPE_CHECKING:
    import pandas
    import supervision


@dataclass(frozen=True)
class Prediction:
    """What a model found in one image; ``n`` detections by falling score.

    Args:
        frame: the image.
        orig_size: its height and width (turned as its EXIF orientation says).
        boxes_orig: ``[n, 4]`` float64 ``x1 y1 x2 y2`` in pixels of the image.
        scores: ``[n]`` float64 in [0, 1].
        labels: ``[n]`` int64 in ``0..C-1``.
        masks: ``n`` COCO run lengths ``{"size": [h, w], "counts": bytes}``; empty from a model without masks.
        meta: classes and bands of the model.
    """

    frame: Frame
    orig_size: tuple[int, int]
    boxes_orig: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[dict[str, Any]]
    meta: ModelMeta

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.labels)

    @property
    def path(self) -> Path:
        """The image's file; of a frame of a video ``<video>#<number>``."""
        return Path(self.frame.name)

    @property
    def image(self) -> np.ndarray:
        """``[h, w, 3]`` uint8 RGB pixels; of a file they are read again."""
        return self.frame.load()

    @property
    def names(self) -> list[str]:
        """``n`` class names."""
        return [self.meta.names[label] for label in self.labels]

    @property
    def bands(self) -> list[str]:
        """``n`` names of the classes' frequency bands."""
        return [self.meta.band_names[self.meta.class_band[label]] for label in self.labels]

    def mask(self, row: int) -> np.ndarray:
        """``[h, w]`` bool mask of one detection."""
        return decode(self.masks[row])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: path, size, and per detection class, band, score, box and mask (compressed RLE)."""
        return {
            "path": self.frame.name,
            "height": self.orig_size[0],
            "width": self.orig_size[1],
            "detections": detections_json(
                self.meta, ImageDetections(self.boxes_orig, self.scores, self.labels, self.masks)
            ),
        }

    def to_coco(self, image_id: int | str | None = None) -> list[dict[str, Any]]:
        """Records of COCO's results format, as pycocotools and lvis read them.

        Args:
            image_id: of the image; None takes the name of its file, as a number where it is one (as in COCO).
        """
        stem = self.frame.stem
        key = image_id if image_id is not None else int(stem) if stem.isdecimal() else stem
        records = []
        for found in self.to_dict()["detections"]:
            left, top, right, bottom = found["box"]
            record = {
                "image_id": key,
                "category_id": found["category_id"],
                "bbox": [left, top, right - left, bottom - top],
                "score": found["score"],
            }
            records.append(record | ({"segmentation": found["mask"]} if "mask" in found else {}))
        return records

    def to_yolo(self) -> str:
        """Lines of YOLO's format: class number, center, width and height as shares of the image, and score."""
        height, width = self.orig_size
        lines = []
        for label, score, box in zip(self.labels.tolist(), self.scores.tolist(), self.boxes_orig, strict=True):
            left, top, right, bottom = (box / [width, height, width, height]).tolist()
            values = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top, score
            lines.append(" ".join([str(label), *(f"{value:.6g}" for value in values)]) + "\n")
        return "".join(lines)

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each detection: path, label, category_id, name, band, score, x1, y1, x2, y2 (pixels).

        Raises:
            ConfigError: if pandas is not installed.
        """
        rows = [
            {"path": self.frame.name, **{key: found[key] for key in ("label", "category_id", "name", "band", "score")}}
            | dict(zip(("x1", "y1", "x2", "y2"), found["box"], strict=True))
            for found in self.to_dict()["detections"]
        ]
        columns = ["path", "label", "category_id", "name", "band", "score", "x1", "y1", "x2", "y2"]
        return _package("pandas").DataFrame(rows, columns=columns)

    def to_supervision(self) -> supervision.Detections:
        """``supervision.Detections`` with masks, and in ``data`` the classes' names and bands.

        Raises:
            ConfigError: if supervision is not installed.
        """
        masks = np.stack([self.mask(row) for row in range(len(self))]) if self.masks else None
        return _package("supervision").Detections(
            xyxy=self.boxes_orig.reshape(-1, 4),
            mask=masks,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=str), "band": np.array(self.bands, dtype=str)},
        )

    def draw(self) -> Image.Image:
        """The image with masks, boxes and labels in the colours of the bands."""
        return draw_detections(
            self.image,
            boxes=self.boxes_orig,
            scores=self.scores,
            names=self.names,
            bands=np.asarray([self.meta.class_band[label] for label in self.labels], dtype=np.int64),
            band_names=self.meta.band_names,
            mask_of=self.mask if self.masks else None,
        )

    def crops(self) -> list[Image.Image]:
        """What is inside each box, as pictures of their own."""
        image = self.image
        height, width = self.orig_size
        pictures = []
        for left, top, right, bottom in self.boxes_orig.tolist():
            x, y = min(int(left), width - 1), min(int(top), height - 1)
            inside = image[y : max(y + 1, round(bottom)), x : max(x + 1, round(right))]
            pictures.append(Image.fromarray(inside))
        return pictures


def _package(name: str) -> ModuleType:
    try:
        return __import__(name)
    except ImportError as error:
        raise ConfigError(f"{name} is not installed: pip install {name}") from error
