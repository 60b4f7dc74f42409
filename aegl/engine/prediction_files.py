"""What `predict` leaves in its run: drawn images or a video, labels, results, crops."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from aegl.engine.prediction import Prediction
from aegl.engine.runs import PREDICTIONS_FILE, write_text
from aegl.engine.video import VideoInfo, VideoWriter
from aegl.errors import RunError

COCO_FILE = "coco_results.json"
LABELS_FOLDER, CROPS_FOLDER = "labels", "crops"
_QUALITY = 92


@dataclass(frozen=True)
class Kept:
    """What to write.

    Args:
        images: drawn images, or one drawn video.
        labels: a text file in YOLO's format for each image.
        coco: all results in COCO's format.
        crops: what is in each box, by class.
    """

    images: bool = True
    labels: bool = False
    coco: bool = False
    crops: bool = False


class PredictionFiles:
    """Context that writes predictions as they come, and the lists of all of them at its end, whatever ended it.

    Args:
        run: the folder.
        kept: what to write besides ``predictions.json``.
        video: of the source, if it is one: frames become one video.

    Raises:
        RunError: if a file cannot be written.
    """

    def __init__(self, run: Path, kept: Kept, video: VideoInfo | None = None) -> None:
        self.found: list[dict[str, Any]] = []
        self._run = run
        self._kept = kept
        self._video = video
        self._writer: VideoWriter | None = None
        self._coco: list[dict[str, Any]] = []
        self._taken: set[str] = set()

    def add(self, prediction: Prediction) -> None:
        """Write what belongs to one image."""
        self.found.append(prediction.to_dict())
        stem = self._stem(prediction.frame.stem)
        try:
            if self._kept.images:
                self._draw(prediction, stem)
            if self._kept.labels:
                folder = self._folder(LABELS_FOLDER)
                (folder / f"{stem}.txt").write_text(prediction.to_yolo(), encoding="ascii")
            if self._kept.crops:
                self._crop(prediction, stem)
        except OSError as error:
            raise RunError(f"{self._run}: cannot be written ({error.strerror})") from error
        if self._kept.coco:
            self._coco += prediction.to_coco()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        write_text(self._run / PREDICTIONS_FILE, json.dumps(self.found) + "\n")
        if self._kept.coco:
            write_text(self._run / COCO_FILE, json.dumps(self._coco) + "\n")

    def _draw(self, prediction: Prediction, stem: str) -> None:
        picture = prediction.draw()
        if self._video is None:
            picture.save(self._run / f"{stem}.jpg", quality=_QUALITY)
            return
        if self._writer is None:
            name = stem.rpartition("-")[0] or stem
            self._writer = VideoWriter(self._run / f"{name}.mp4", self._video.rate)
        self._writer.add(np.asarray(picture))

    def _crop(self, prediction: Prediction, stem: str) -> None:
        for number, (name, picture) in enumerate(zip(prediction.names, prediction.crops(), strict=True)):
            safe = "".join(letter if letter.isalnum() or letter in "-_ " else "_" for letter in name)
            picture.save(self._folder(f"{CROPS_FOLDER}/{safe}") / f"{stem}-{number}.jpg", quality=_QUALITY)

    def _folder(self, name: str) -> Path:
        folder = self._run / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _stem(self, wanted: str) -> str:
        """The image's own name, numbered where images of several folders or kinds share one."""
        numbered = (f"{wanted}-{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([wanted], numbered) if name not in self._taken)
        self._taken.add(name)
        return name
