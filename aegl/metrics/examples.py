"""Which images to look at: the best and the worst detected ones, and those of the rarest classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aegl.metrics.detections import DetectionTable
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.iou import box_edges

IOU = 0.5
"""Overlap of boxes from which an object counts as found."""


@dataclass(frozen=True)
class Example:
    """An image worth a look.

    Args:
        image: its row in the split.
        objects: rows of its annotations that are to be found.
        detections: rows of its best detections, as many as it has objects; best first.
        found: how many of its objects these find, class included.
    """

    image: int
    objects: np.ndarray
    detections: np.ndarray
    found: int


def find_examples(
    gt: GroundTruth, table: DetectionTable, class_images: np.ndarray, keep: int
) -> dict[str, list[Example]]:
    """Choose ``keep`` images of each kind.

    An image is judged by how many of its objects its best detections find when it may have as many as it has objects:
    no score threshold to choose, and detections too many cost something.

    Args:
        gt: ground truth.
        table: detections.
        class_images: ``[C]`` in how many images each class occurs, to tell the rare ones.
        keep: images of each kind at most; no image is both among the best and the worst.

    Returns:
        ``best`` (largest share found, of equals those with most objects), ``worst`` (smallest share, most objects), and
        ``rarest`` (with objects of the rarest classes; these depend on the ground truth alone, so that runs can be
        compared on them).
    """
    regular = np.flatnonzero(~(gt.ann_crowd | gt.ann_ignore))
    number = np.bincount(gt.ann_image[regular], minlength=len(gt.image_ids))
    rows = _best_rows(table, number)
    found = _found(gt, table, rows, regular)
    hits = np.bincount(gt.ann_image[regular], weights=found, minlength=len(number)).astype(np.int64)
    seen = np.flatnonzero(number)
    share = hits[seen] / number[seen]
    best = seen[np.lexsort((-number[seen], -share))][: min(keep, -(-len(seen) // 2))]
    worst = seen[np.lexsort((-number[seen], share))]
    worst = worst[~np.isin(worst, best)][:keep]
    chosen = {"best": best, "worst": worst, "rarest": _rarest(gt, regular, class_images, keep)}

    def example(image: int) -> Example:
        own = rows[table.image_index[rows] == image]
        return Example(image, regular[gt.ann_image[regular] == image], own, int(hits[image]))

    return {kind: [example(image) for image in images.tolist()] for kind, images in chosen.items()}


def _best_rows(table: DetectionTable, number: np.ndarray) -> np.ndarray:
    """Rows of the best detections of every image, as many as it has objects, best first."""
    order = np.lexsort((-table.score, table.image_index))
    image = table.image_index[order]
    rank = np.arange(len(order)) - np.searchsorted(image, image, side="left")
    return np.asarray(order[rank < number[image]])


def _found(gt: GroundTruth, table: DetectionTable, rows: np.ndarray, regular: np.ndarray) -> np.ndarray:
    """``[len(regular)]`` bool: which objects one of the detections overlaps, with their class."""
    by_pair = [
        image.astype(np.int64) * gt.num_classes + label
        for image, label in (
            (table.image_index[rows], table.label[rows]),
            (gt.ann_image[regular], gt.ann_labels[regular]),
        )
    ]
    det, own = (np.argsort(pair, kind="stable") for pair in by_pair)
    edges = box_edges(
        by_pair[0][det],
        by_pair[1][own],
        table.boxes_xywh_orig[rows[det]],
        gt.ann_boxes_xywh[regular[own]],
        np.zeros(len(regular), dtype=bool),
        IOU,
    )
    found = np.zeros(len(regular), dtype=bool)
    found[own[edges.gt]] = True
    return found


def _rarest(gt: GroundTruth, regular: np.ndarray, class_images: np.ndarray, keep: int) -> np.ndarray:
    """Images of the rarest classes, one image a class, by rising id among equals."""
    order = np.lexsort((gt.image_ids[gt.ann_image[regular]], class_images[gt.ann_labels[regular]]))
    chosen: dict[int, None] = {}
    classes: set[int] = set()
    for annotation in regular[order].tolist():
        label, image = int(gt.ann_labels[annotation]), int(gt.ann_image[annotation])
        if label not in classes and image not in chosen:
            chosen[image] = None
            classes.add(label)
        if len(chosen) == keep:
            break
    return np.fromiter(chosen, dtype=np.int64, count=len(chosen))
