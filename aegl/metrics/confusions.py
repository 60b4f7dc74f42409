"""Which classes are taken for which: a sparse list, never a matrix of all classes by all classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from aegl.metrics.detections import DetectionTable
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.iou import box_edges

IOU = 0.5
"""Overlap of boxes from which a detection is about an object."""

_BLOCK = 1 << 17
"""Detections looked at at once; bounds the memory, not the result."""


@dataclass(frozen=True)
class Confusion:
    """Objects of one class that are taken for another: its detection scores higher than any of their own class.

    Args:
        label: the class they have, ``0..C-1``.
        predicted: the class of the detections with the highest score.
        count: number of such objects.
        mean_score: mean score of those detections.
    """

    label: int
    predicted: int
    count: int
    mean_score: float


def find_confusions(gt: GroundTruth, table: DetectionTable, keep: int) -> list[Confusion]:
    """The most frequent confusions, most frequent first.

    An object counts where, among the detections that overlap its box by :data:`IOU`, the one of the highest score is of
    another class: the class it was taken for. Detections that overlap an object of their own class so much are about
    that one, and confuse nothing. Crowds and annotations to be ignored are left out. All detections are looked at, also
    those of classes that federated ground truth does not judge in their image: the class that an object was taken for
    is seldom one that was looked for there.

    Args:
        gt: ground truth.
        table: detections.
        keep: length of the list at most.
    """
    parts = [_taken_for(gt, table, *block) for block in _blocks_of_images(gt, table)]
    pair = np.concatenate([np.zeros(0, dtype=np.int64), *(pair for pair, _ in parts)])
    score = np.concatenate([np.zeros(0), *(score for _, score in parts)])
    pairs, which, count = np.unique(pair, return_inverse=True, return_counts=True)
    mean_score = np.bincount(which, weights=score, minlength=len(pairs)) / np.maximum(count, 1)
    return [
        Confusion(*divmod(int(pairs[row]), gt.num_classes), int(count[row]), float(mean_score[row]))
        for row in np.lexsort((pairs, -mean_score, -count))[:keep]
    ]


def _blocks_of_images(gt: GroundTruth, table: DetectionTable) -> Iterator[tuple[np.ndarray, slice]]:
    """Rows of the detections of some images, sorted by image, and where the annotations of these images lie."""
    order = np.argsort(table.image_index, kind="stable")
    num_images = len(gt.image_ids)
    starts = np.searchsorted(table.image_index, np.arange(num_images + 1), sorter=order)
    cuts = np.unique([*np.searchsorted(starts, np.arange(0, len(table), _BLOCK)), num_images])
    for first, stop in pairwise(cuts):
        annotations = slice(*np.searchsorted(gt.ann_image, [first, stop]))
        yield order[starts[first] : starts[stop]], annotations


def _taken_for(
    gt: GroundTruth, table: DetectionTable, rows: np.ndarray, annotations: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Of every object that is taken for another class: ``label * C + predicted``, and the score."""
    edges = box_edges(
        table.image_index[rows].astype(np.int64),
        gt.ann_image[annotations],
        table.boxes_xywh_orig[rows],
        gt.ann_boxes_xywh[annotations],
        gt.ann_crowd[annotations],
        IOU,
    )
    predicted, score, label = table.label[rows], table.score[rows], gt.ann_labels[annotations]
    own = predicted[edges.det] == label[edges.gt]
    right = np.zeros(len(rows), dtype=bool)
    right[edges.det[own]] = True
    left_out = gt.ann_crowd[annotations] | gt.ann_ignore[annotations]
    best_own = np.full(len(label), -np.inf)
    np.maximum.at(best_own, edges.gt[own], score[edges.det[own]])
    keep = ~right[edges.det] & ~left_out[edges.gt] & (score[edges.det] > best_own[edges.gt])
    det, annotation = edges.det[keep], edges.gt[keep]
    order = np.lexsort((det, -score[det], annotation))
    best = order[np.diff(annotation[order], prepend=-1) != 0]  # the highest score of every object, the first of equals
    return label[annotation[best]] * gt.num_classes + predicted[det[best]], score[det[best]]
