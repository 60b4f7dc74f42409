"""Scoring of detections under one protocol, for models and for results files alike, and ``metrics.json``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.engine.runs import METRICS_FILE, write_text
from aegl.metrics import DetectionTable, GroundTruth, evaluate, metrics_json, summary_json

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.progress import Progress

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_SECONDS_PER_DETECTION = 1e-5
"""Rough cost of scoring a detection's box and mask, measured on one CPU core: for the estimate shown beforehand."""


class Scorer:
    """Knows a split's ground truth and the rules to score by.

    Args:
        store: ground truth.
        protocol: ``lvis`` or ``coco``.
        split: the split's name, for the record.
        class_band: ``[C]`` integers, each class's index into ``band_names``.
        band_names: names of the frequency bands, rarest first.
        max_det: detections that count: per image for LVIS, per image and class for COCO; None: the protocol's own.
    """

    def __init__(
        self,
        store: AnnotationStore,
        *,
        protocol: str,
        split: str,
        class_band: np.ndarray,
        band_names: Sequence[str],
        max_det: int | None = None,
    ) -> None:
        self.protocol = protocol
        self.split = split
        self._store = store
        self._class_band = np.asarray(class_band)
        self._band_names = tuple(band_names)
        self._max_det = max_det

    def score(
        self,
        table: DetectionTable,
        *,
        folder: Path | None,
        progress: Progress,
        inference_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Score boxes, and masks where the table has them.

        Args:
            table: detections of the whole split.
            folder: where to write ``metrics.json``: the summary, counts, hash of the ground truth, AP per class, times
                and peak memory. None writes nothing.
            progress: told beforehand how much there is to score, and for about how long.
            inference_seconds: time the detections took, for the record.

        Returns:
            ``{"protocol", "split", "bands", "box": {figures}, "mask": {figures} or None}``, figures in [0, 1] or None.
        """
        iou_types = ("bbox",) if table.masks is None else ("bbox", "segm")
        progress.message(self._announcement(len(table), len(iou_types)))
        started = time.perf_counter()
        ground_truth = GroundTruth.from_store(self._store)
        results = {
            iou_type: evaluate(
                ground_truth,
                table,
                protocol=self.protocol,
                iou_type=iou_type,
                class_band=self._class_band,
                band_names=self._band_names,
                max_det=self._max_det,
            )
            for iou_type in iou_types
        }
        box, mask = results["bbox"], results.get("segm")
        common: dict[str, Any] = {
            "protocol": self.protocol,
            "split": self.split,
            "band_names": self._band_names,
            "box": box,
            "mask": mask,
        }
        if folder is not None:
            content = metrics_json(self._store, num_detections=len(table), max_det=box.max_dets[-1], **common)
            content["per_class"] = {
                kind: None if result is None else result.to_dict()["per_class"]
                for kind, result in (("box", box), ("mask", mask))
            }
            content["seconds"] = {"inference": inference_seconds, "scoring": time.perf_counter() - started}
            content["peak_memory_mb"] = _peak_memory_mb()
            write_text(folder / METRICS_FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return summary_json(**common)

    def _announcement(self, detections: int, kinds: int) -> str:
        images, classes = len(self._store.image_ids), len(self._store.categories.ids)
        seconds = detections * kinds / 2 * _SECONDS_PER_DETECTION
        estimate = "less than 10 s" if seconds < 10 else f"about {seconds:.0f} s"
        peak = _peak_memory_mb()
        memory = "" if peak is None else f"; peak memory so far {peak:.0f} MB"
        return (
            f"scoring {detections} detections of {classes} classes on {images} images ({self.protocol}, {self.split}), "
            f"{estimate}{memory}"
        )


def _peak_memory_mb() -> float | None:
    """Largest resident size of this process so far, in MiB; None on systems that do not tell (Windows)."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
