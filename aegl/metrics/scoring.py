"""From rows of detections and ground truth to precision and recall: the core both protocols share.

A protocol says which detections count and what is ignored (:class:`Problem`); everything else is the same for both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from aegl.metrics.detections import DetectionTable
from aegl.metrics.ground_truth import GroundTruth
from aegl.metrics.matching import greedy_match
from aegl.metrics.overlaps import OVERLAPS
from aegl.metrics.parallel import ordered_map, shared_zeros
from aegl.metrics.precision import RECALL_POINTS, precision_recall
from aegl.metrics.score_counts import SCORE_EDGES, score_counts
from aegl.progress import Progress, SilentProgress

log = logging.getLogger("aegl")

Finished = TypeVar("Finished")

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""``[T]`` float64."""
_BLOCK = 1 << 16
"""Detections judged at once; bounds the memory, not the result."""
_SMALL_BLOCK, _SHARES = 1 << 13, 16
"""Fewer detections are not worth a process of their own, and shares into which more are cut."""
AREA_RANGES = np.array([[0.0, 1e10], [0.0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]])
"""``[A, 2]`` square pixels, both ends included: all, small, medium, large."""


@dataclass(frozen=True)
class Problem:
    """What one protocol scores.

    Args:
        gt: the ground truth.
        table: the detections.
        rows: ``[D]`` int64 rows of ``table`` that count.
        gt_ignore: ``[G]`` bool: neither to be found nor wrong to find.
        gt_crowd: ``[G]`` bool: may be matched often, overlap measured against the detection's area.
        lenient: ``[D]`` bool: not a false positive where unmatched.
        max_dets: rising numbers of detections per image and class to compute recall at; the last bounds all.
    """

    gt: GroundTruth
    table: DetectionTable
    rows: np.ndarray
    gt_ignore: np.ndarray
    gt_crowd: np.ndarray
    lenient: np.ndarray
    max_dets: tuple[int, ...]


@dataclass(frozen=True)
class Curves:
    """Precision and recall of all classes; -1 where a class has no ground truth to find.

    Args:
        precision: ``[T, R, C, A]`` float64 at 101 recall points, with the largest number of detections.
        recall: ``[T, C, A, M]`` float64, the largest recall with each number of detections.
        max_dets: the ``M`` numbers of detections.
        scores: ``[C, 2, B]`` int64, see :func:`aegl.metrics.score_counts.score_counts`, at an IoU of 0.5.
    """

    precision: np.ndarray
    recall: np.ndarray
    max_dets: tuple[int, ...]
    scores: np.ndarray

    def over(self, classes: np.ndarray) -> Curves:
        """What the figures of these classes (``[C]`` bool) are means of."""
        if classes.all():
            return self
        precision, recall = np.compress(classes, self.precision, axis=2), np.compress(classes, self.recall, axis=1)
        return Curves(precision, recall, self.max_dets, self.scores[classes])


@dataclass(frozen=True)
class Verdicts:
    """What became of the detections: by class, within a class by image, within an image by falling score.

    Args:
        label: ``[D]`` int64.
        image: ``[D]`` int64 rank of the image by its id.
        score: ``[D]`` float64.
        rank: ``[D]`` int64 rank by score within image and class.
        matched: ``[A, T, D]`` bool.
        ignored: ``[A, T, D]`` bool: neither true nor false positives.
        num_gt: ``[C, A]`` int64 ground truth to be found.
        max_dets: as in :class:`Problem`.
    """

    label: np.ndarray
    image: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    num_gt: np.ndarray
    max_dets: tuple[int, ...]

    def curves(self) -> Curves:
        """Precision and recall of every class."""
        precision, recall = precision_recall(
            det_label=self.label,
            det_score=self.score,
            det_rank=self.rank,
            matched=self.matched,
            ignored=self.ignored,
            num_gt=self.num_gt,
            max_dets=self.max_dets,
        )
        counts = ~self.ignored[0, 0]  # all sizes, the lowest threshold
        scores = score_counts(self.label[counts], self.score[counts], self.matched[0, 0, counts], len(self.num_gt))
        return Curves(precision, recall, self.max_dets, scores)


def score(problem: Problem, iou_type: str, progress: Progress | None = None) -> Curves:
    """Match and accumulate; arguments and errors as for :func:`judge_blocks`."""
    num_classes, max_dets = problem.gt.num_classes, problem.max_dets
    shape = (len(IOU_THRESHOLDS), num_classes, len(AREA_RANGES))
    precision = shared_zeros((shape[0], len(RECALL_POINTS), *shape[1:]), np.float64)
    recall = shared_zeros((*shape, len(max_dets)), np.float64)
    scores = shared_zeros((num_classes, 2, len(SCORE_EDGES) - 1), np.int64)

    def keep(classes: slice, verdicts: Verdicts) -> None:
        curves = verdicts.curves()
        precision[:, :, classes], recall[:, classes] = curves.precision, curves.recall
        scores[classes] = curves.scores

    for _ in judge_blocks(_without_unscored_classes(problem), iou_type, keep, progress):
        pass
    return Curves(precision, recall, max_dets, scores)


def judge(problem: Problem, iou_type: str, progress: Progress | None = None) -> Verdicts:
    """Match the detections of all classes; arguments and errors as for :func:`judge_blocks`."""
    blocks = [
        replace(verdicts, label=verdicts.label + classes.start)
        for classes, verdicts in judge_blocks(problem, iou_type, lambda _, verdicts: verdicts, progress)
    ]
    axes = {"label": 0, "image": 0, "score": 0, "rank": 0, "num_gt": 0, "matched": 2, "ignored": 2}
    joined = {name: np.concatenate([getattr(block, name) for block in blocks], axis) for name, axis in axes.items()}
    return Verdicts(**joined, max_dets=problem.max_dets)


def judge_blocks(
    problem: Problem, iou_type: str, finish: Callable[[slice, Verdicts], Finished], progress: Progress | None = None
) -> Iterator[tuple[slice, Finished]]:
    """Match, as many classes at once as hold a bounded number of detections, on all cores.

    Args:
        problem: what to score.
        iou_type: ``bbox``, ``segm`` or ``boundary``.
        finish: what to make of some classes and their verdicts, whose ``label`` is counted from the first of them; what
            it changes is seen by this process only in :func:`~aegl.metrics.parallel.shared_zeros`.
        progress: told of the classes that are done.

    Yields:
        The classes, and what ``finish`` has made of their verdicts.

    Raises:
        DataError: if masks are asked for and the detections or a ground truth have none.
    """
    progress = progress or SilentProgress()
    gt, table = problem.gt, problem.table
    image_rank = gt.image_order
    _warn_of_id_zero(gt)
    gt_rows = np.lexsort((image_rank[gt.ann_image], gt.ann_labels))
    gt_starts = np.searchsorted(gt.ann_labels[gt_rows], np.arange(gt.num_classes + 1))
    label = table.label[problem.rows]
    order = np.argsort(label, kind="stable")
    det_starts = np.searchsorted(label[order], np.arange(gt.num_classes + 1))

    def work(classes: slice) -> Finished:
        det = order[det_starts[classes.start] : det_starts[classes.stop]]
        annotations = gt_rows[gt_starts[classes.start] : gt_starts[classes.stop]]
        return finish(classes, _judge(problem, iou_type, classes, det, annotations, image_rank))

    blocks = list(_blocks(det_starts))
    progress.start(f"score {iou_type}", gt.num_classes, "class")
    for classes, finished in zip(blocks, ordered_map(work, blocks), strict=True):
        yield classes, finished
        progress.update(classes.stop - classes.start)
    progress.finish()


def _without_unscored_classes(problem: Problem) -> Problem:
    """Detections of classes without ground truth change no figure of a class."""
    has_gt = np.bincount(problem.gt.ann_labels, minlength=problem.gt.num_classes) > 0
    keep = has_gt[problem.table.label[problem.rows]]
    return problem if keep.all() else replace(problem, rows=problem.rows[keep], lenient=problem.lenient[keep])


def _blocks(starts: np.ndarray) -> Iterator[slice]:
    """Ranges of classes, each of few detections or of a single class; enough of them to share out."""
    size = min(_BLOCK, max(_SMALL_BLOCK, int(starts[-1]) // _SHARES))
    first = 0
    while first < len(starts) - 1:
        stop = int(np.searchsorted(starts, starts[first] + size, side="right")) - 1
        stop = min(max(stop, first + 1), len(starts) - 1)
        yield slice(first, stop)
        first = stop


def _judge(
    problem: Problem, iou_type: str, classes: slice, det: np.ndarray, gt_rows: np.ndarray, image_rank: np.ndarray
) -> Verdicts:
    """Verdicts of a block of classes; ``det`` are positions in ``problem.rows``, ``gt_rows`` come by pair."""
    gt, table, num_images = problem.gt, problem.table, len(image_rank)
    det_key = table.label[problem.rows[det]].astype(np.int64) * num_images
    det_key += image_rank[table.image_index[problem.rows[det]]]
    order = np.lexsort((-table.score[problem.rows[det]], det_key))
    det, det_pair = det[order], det_key[order]
    det_rank = np.arange(len(det)) - np.searchsorted(det_pair, det_pair, side="left")
    det, det_pair, det_rank = (v[det_rank < problem.max_dets[-1]] for v in (det, det_pair, det_rank))
    rows = problem.rows[det]

    gt_pair = gt.ann_labels[gt_rows] * num_images + image_rank[gt.ann_image[gt_rows]]
    gt_ignore = problem.gt_ignore[gt_rows] | _outside(gt.ann_areas[gt_rows])
    matched, ignored = np.empty((2, len(AREA_RANGES), len(IOU_THRESHOLDS), len(det)), dtype=bool)
    for d in _whole_pairs(det_pair):
        g = slice(*np.searchsorted(gt_pair, [det_pair[d.start], det_pair[d.stop - 1] + 1]))
        pairs, ignore = (det_pair[d], gt_pair[g]), gt_ignore[:, g]
        edges = OVERLAPS[iou_type](problem, rows[d], gt_rows[g], *pairs, IOU_THRESHOLDS[0])
        match = greedy_match(edges, *pairs, ignore, problem.gt_crowd[gt_rows[g]], IOU_THRESHOLDS)
        # The official packages note a match by the annotation's id, and so miss one with the id 0.
        matched[..., d], ignored[..., d] = _verdicts(match, ignore, gt.ann_ids[gt_rows[g]] != 0)
    ignored |= ~matched & (_outside(table.areas(rows)) | problem.lenient[det])[:, None, :]
    return Verdicts(
        label=det_pair // num_images - classes.start,
        image=det_pair % num_images,
        score=table.score[rows],
        rank=det_rank,
        matched=matched,
        ignored=ignored,
        num_gt=_count_gt(gt.ann_labels[gt_rows] - classes.start, gt_ignore, classes.stop - classes.start),
        max_dets=problem.max_dets,
    )


def _whole_pairs(pair: np.ndarray) -> Iterator[slice]:
    """Stretches of about :data:`_BLOCK` detections that tear no pair apart; ``pair`` is sorted."""
    start = 0
    while start < len(pair):
        stop = int(np.searchsorted(pair, pair[min(start + _BLOCK, len(pair)) - 1], side="right"))
        yield slice(start, stop)
        start = stop


def _outside(areas: np.ndarray) -> np.ndarray:
    """``[A, N]`` bool: areas outside each size range."""
    return np.asarray((areas < AREA_RANGES[:, :1]) | (areas > AREA_RANGES[:, 1:]))


def _warn_of_id_zero(gt: GroundTruth) -> None:
    if (gt.ann_ids == 0).any():
        log.warning(
            "the ground truth has an annotation with id 0: the official scorers, and so aegl, count what matches it as "
            "unmatched; number annotations from 1"
        )


def _verdicts(match: np.ndarray, gt_ignore: np.ndarray, marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[A, T, D]`` bool twice: matched, and matched to ground truth that is ignored."""
    matched = match >= 0
    ignored = np.zeros_like(matched)
    area, threshold, det = np.nonzero(matched)
    found = match[area, threshold, det]
    ignored[area, threshold, det] = gt_ignore[area, found]
    matched[area, threshold, det] = marked[found]
    return matched, ignored


def _count_gt(labels: np.ndarray, gt_ignore: np.ndarray, num_classes: int) -> np.ndarray:
    """``[C, A]`` int64: ground truth to be found."""
    return np.stack([np.bincount(labels[~ignore], minlength=num_classes) for ignore in gt_ignore], axis=1)
