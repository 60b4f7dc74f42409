"""What is known of every class: how much it was trained on, how much there was to find, and how well it was found."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.metrics.bands import at_threshold
from aegl.metrics.detections import DetectionTable
from aegl.metrics.precision import RECALL_POINTS
from aegl.metrics.result import EvalResult

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.longtail.statistics import ClassStatistics


def class_table(
    store: AnnotationStore,
    table: DetectionTable,
    results: Mapping[str, EvalResult],
    *,
    class_band: np.ndarray,
    band_names: Sequence[str],
    statistics: ClassStatistics | None,
) -> dict[str, list[Any]]:
    """Columns of ``C`` plain values each, in the order of the labels.

    Args:
        store: ground truth of the split.
        table: detections.
        results: figures by kind (``box``, ``mask``, ``boundary``).
        class_band: ``[C]`` integers, each class's index into ``band_names``.
        band_names: names of the frequency bands, rarest first.
        statistics: of the training split, or None if there is none.

    Returns:
        ``class``, ``category_id``, ``band``, ``train_images`` and ``train_instances`` (None where unknown), ``gt`` (all
        annotations of the split) and ``detections``, and for every kind ``<kind>_AP``, ``<kind>_AP50`` and
        ``<kind>_AR`` in [0, 1], None where the class has nothing to be found.
    """
    count = len(store.categories.ids)
    columns: dict[str, list[Any]] = {
        "class": list(store.categories.names),
        "category_id": [int(v) for v in store.categories.ids],
        "band": [band_names[band] for band in class_band],
        "train_images": [None] * count if statistics is None else statistics.image_counts.tolist(),
        "train_instances": [None] * count if statistics is None else statistics.instance_counts.tolist(),
        "gt": np.bincount(store.ann_labels, minlength=count).tolist(),
        "detections": np.bincount(table.label, minlength=count).tolist(),
    }
    for kind, result in results.items():
        columns[f"{kind}_AP"] = _plain(result.per_class)
        columns[f"{kind}_AP50"] = _plain(_defined(result.precision[at_threshold(0.5), :, :, 0]).mean(axis=0))
        columns[f"{kind}_AR"] = _plain(_defined(result.recall[:, :, 0, -1]).mean(axis=0))
    return columns


def as_csv(columns: Mapping[str, Sequence[Any]]) -> str:
    """The table as text, a class a line; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def precision_curves(store: AnnotationStore, results: Mapping[str, EvalResult]) -> dict[str, np.ndarray]:
    """Precision at 101 recall points, as arrays for one ``.npz``; NaN where a class has nothing to be found.

    Returns:
        ``recall`` ``[101]``, ``category_id`` ``[C]``, ``class`` ``[C]``, and for every kind ``<kind>_precision50`` and
        ``<kind>_precision`` ``[C, 101]`` float32 at an IoU of 0.5 and in the mean over the ten thresholds, and
        ``<kind>_overall50`` and ``<kind>_overall`` ``[101]``, what AP50 and AP are means of: the mean over the classes,
        or in a pooled protocol the one curve of all.
    """
    arrays = {
        "recall": RECALL_POINTS,
        "category_id": np.asarray(store.categories.ids, dtype=np.int64),
        "class": np.asarray(store.categories.names, dtype=np.str_),
    }
    for kind, result in results.items():
        precision = _defined(result.precision[..., 0])
        arrays[f"{kind}_precision50"] = precision[at_threshold(0.5)].T.astype(np.float32)
        arrays[f"{kind}_precision"] = precision.mean(axis=0).T.astype(np.float32)
        arrays[f"{kind}_overall50"] = result.overall[at_threshold(0.5)].astype(np.float32)
        arrays[f"{kind}_overall"] = result.overall.mean(axis=0).astype(np.float32)
    return arrays


def _defined(values: np.ndarray) -> np.ndarray:
    return np.where(values > -1, values, np.nan)


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
