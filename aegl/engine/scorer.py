"""Scoring of detections under one protocol, for models and for results files alike, and ``metrics.json``."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.data.store import NO_MASK
from aegl.engine.examples_json import examples_json
from aegl.engine.memory_use import peak_resident_mb
from aegl.engine.runs import CURVES_FILE, EXAMPLES_FILE, METRICS_FILE, PER_CLASS_FILE, write_bytes, write_text
from aegl.metrics import DetectionTable, EvalResult, GroundTruth, evaluate, metrics_json, official, summary_json
from aegl.metrics.class_table import as_csv, class_table, precision_curves
from aegl.metrics.confusions import Confusion, find_confusions
from aegl.metrics.official import require_official
from aegl.metrics.report import KINDS
from aegl.metrics.score_counts import scores_by_band

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.longtail.statistics import ClassStatistics
    from aegl.progress import Progress

_SECONDS_PER_DETECTION = {"box": 1e-6, "mask": 4e-6, "boundary": 4e-5}
"""Rough cost of scoring, measured on one CPU core: for the estimate shown beforehand."""
_WORKING_MB = 400
"""Memory that scoring takes at most beside detections and ground truth."""


@dataclass(frozen=True)
class Extras:
    """What to do besides scoring boxes and masks.

    Args:
        boundary: score masks by their boundaries too.
        official: take the figures from the official package, and compare.
        confusions: how many of the most frequent confusions to list.
    """

    boundary: bool = False
    official: bool = False
    confusions: int = 50


class Scorer:
    """Knows a split's ground truth and the rules to score by.

    Args:
        store: ground truth.
        protocol: a key of :data:`aegl.metrics.PROTOCOLS`.
        split: the split's name, for the record.
        class_band: ``[C]`` integers, each class's index into ``band_names``.
        band_names: names of the frequency bands, rarest first.
        max_det: detections that count (see :class:`aegl.metrics.protocols.Protocol`); None: the protocol's own number.
        statistics: of the training split, for the table of classes; None if there is none.
        extras: what else to do.

    Raises:
        ConfigError: if no official package can do what it is asked for.
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
        statistics: ClassStatistics | None = None,
        extras: Extras = Extras(),
    ) -> None:
        if extras.official:
            require_official(protocol, boundary=extras.boundary)
        self.protocol = protocol
        self.split = split
        self._store = store
        self._bands: dict[str, Any] = {"class_band": np.asarray(class_band), "band_names": tuple(band_names)}
        self._max_det = max_det
        self._statistics = statistics
        self._extras = extras

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
            folder: where to write ``metrics.json`` (the summary, counts, hash of the ground truth, table of classes,
                scores of true and false detections by band, confusions, times and peak memory), the table of classes
                as ``per_class.csv``, ``pr_curves.npz`` (see :func:`aegl.metrics.class_table.precision_curves`) and
                ``examples.json`` (see :func:`aegl.engine.examples_json.examples_json`). None writes nothing.
            progress: told beforehand how much there is to score, and for about how long.
            inference_seconds: time the detections took, for the record.

        Returns:
            The object of :func:`aegl.metrics.summary_json`, and where the official package was run
            ``"official": {"package", "largest_difference"}``; the figures are then the package's, where it has them.
        """
        has_masks = table.masks is not None and self._store_has_masks(progress)
        kinds = [kind for kind in KINDS if kind == "box" or (has_masks and self._wants(kind))]
        progress.message(self._announcement(len(table), kinds))
        started = time.perf_counter()
        ground_truth = GroundTruth.from_store(self._store)
        results = {
            kind: evaluate(
                ground_truth,
                table,
                protocol=self.protocol,
                iou_type=KINDS[kind],
                max_det=self._max_det,
                progress=progress,
                **self._bands,
            )
            for kind in kinds
        }
        seconds = {"inference": inference_seconds, "scoring": time.perf_counter() - started}
        summary = summary_json(results, split=self.split, **self._bands)
        if self._extras.official:
            self._ask_the_official_package(table, results, summary, progress)
        if folder is not None:
            confusions = find_confusions(ground_truth, table, self._extras.confusions)
            self._write(folder, table, results, summary, confusions, seconds)
            examples = examples_json(self._store, ground_truth, table, self._statistics)
            write_text(folder / EXAMPLES_FILE, json.dumps(examples) + "\n")
        return summary

    def _store_has_masks(self, progress: Progress) -> bool:
        """Data of boxes alone has no masks to score; data that lacks a few is broken, and the scoring says which."""
        kinds = np.asarray(self._store.mask_kinds)
        if len(kinds) and (kinds == NO_MASK).all():
            progress.message("the data has no masks: only boxes are scored")
            return False
        return True

    def _wants(self, kind: str) -> bool:
        return kind != "boundary" or self._extras.boundary

    def _ask_the_official_package(
        self, table: DetectionTable, results: Mapping[str, EvalResult], summary: dict[str, Any], progress: Progress
    ) -> None:
        """Put its figures into the summary, and how far they are from aegl's."""
        gigabytes = len(table) * official.BYTES_PER_DETECTION / 1e9
        progress.message(
            f"running the official package too: slow, and about {gigabytes:.1f} GB for {len(table)} detections"
        )
        largest = 0.0
        for kind, ours in results.items():
            theirs = official.run_official(self._store, table, ours, **self._bands)
            largest = max(largest, theirs.largest_difference(ours))
            summary[kind] |= theirs.figures
            summary["official"] = {"package": theirs.package, "largest_difference": largest}

    def _write(
        self,
        folder: Path,
        table: DetectionTable,
        results: Mapping[str, EvalResult],
        summary: Mapping[str, Any],
        confusions: Sequence[Confusion],
        seconds: Mapping[str, float | None],
    ) -> None:
        columns = class_table(self._store, table, results, statistics=self._statistics, **self._bands)
        names = self._store.categories.names
        content = metrics_json(self._store, summary, num_detections=len(table))
        content["per_class"] = columns
        content["scores"] = {kind: scores_by_band(result.scores, **self._bands) for kind, result in results.items()}
        content["confusions"] = [
            {"class": names[c.label], "predicted": names[c.predicted], "count": c.count, "mean_score": c.mean_score}
            for c in confusions
        ]
        content["seconds"] = seconds
        content["peak_memory_mb"] = peak_resident_mb()
        write_text(folder / METRICS_FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")
        write_text(folder / PER_CLASS_FILE, as_csv(columns))
        curves: dict[str, Any] = precision_curves(self._store, results)
        packed = io.BytesIO()
        np.savez_compressed(packed, **curves)
        write_bytes(folder / CURVES_FILE, packed.getvalue())

    def _announcement(self, detections: int, kinds: Sequence[str]) -> str:
        images, classes = len(self._store.image_ids), len(self._store.categories.ids)
        seconds = detections * sum(_SECONDS_PER_DETECTION[kind] for kind in kinds)
        estimate = "less than 10 s" if seconds < 10 else f"about {seconds:.0f} s"
        peak = peak_resident_mb()
        memory = "" if peak is None else f", at most {(peak + _WORKING_MB) / 1024:.1f} GB of memory"
        return (
            f"scoring {detections} detections of {classes} classes on {images} images ({self.protocol}, {self.split}): "
            f"{estimate}{memory}"
        )
