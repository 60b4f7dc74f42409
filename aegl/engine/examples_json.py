"""``examples.json`` of an evaluation: some images with what is in them and what was found, for reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.data.occurrence import images_per_class
from aegl.errors import DataError
from aegl.metrics.examples import Example, find_examples

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.longtail.statistics import ClassStatistics
    from aegl.metrics import DetectionTable, GroundTruth

KEPT = 4
"""Images of each kind."""


def examples_json(
    store: AnnotationStore, gt: GroundTruth, table: DetectionTable, statistics: ClassStatistics | None
) -> dict[str, list[dict[str, Any]]]:
    """The images of :func:`aegl.metrics.examples.find_examples` as plain values.

    Args:
        store: ground truth, for names and files.
        gt: the same, as it is scored.
        table: detections.
        statistics: of the training split, which says how rare classes are; None goes by the split itself.

    Returns:
        For each kind a list of ``{"image_id", "file", "height", "width", "found", "objects": [{"label", "box",
        "mask"}], "detections": [{"label", "score", "box", "mask"}]}``; boxes are x y width height in pixels, ``mask``
        is the ``counts`` string of run lengths or None, ``file`` the path of the image or None if it is not found.
    """
    counts = (
        images_per_class(gt.ann_image, gt.ann_labels, gt.num_classes) if statistics is None else statistics.image_counts
    )
    chosen = find_examples(gt, table, np.asarray(counts), KEPT)
    return {kind: [_image(store, gt, table, example) for example in examples] for kind, examples in chosen.items()}


def _image(store: AnnotationStore, gt: GroundTruth, table: DetectionTable, example: Example) -> dict[str, Any]:
    height, width = store.image_sizes[example.image].tolist()
    return {
        "image_id": int(store.image_ids[example.image]),
        "file": next((str(path) for path in store.image_candidates(example.image) if path.is_file()), None),
        "height": height,
        "width": width,
        "found": example.found,
        "objects": [
            {"label": int(gt.ann_labels[row]), "box": _box(gt.ann_boxes_xywh[row]), "mask": _mask_of_object(gt, row)}
            for row in example.objects.tolist()
        ],
        "detections": [
            {
                "label": int(table.label[row]),
                "score": round(float(table.score[row]), 6),
                "box": _box(table.boxes_xywh_orig[row]),
                "mask": None if table.masks is None else table.masks[row].decode("ascii"),
            }
            for row in example.detections.tolist()
        ],
    }


def _box(values: np.ndarray) -> list[float]:
    return [round(value, 2) for value in values.tolist()]


def _mask_of_object(gt: GroundTruth, row: int) -> str | None:
    try:
        return gt.counts(row).decode("ascii")
    except DataError:  # boxes only, or a mask that scoring boxes has no use for
        return None
