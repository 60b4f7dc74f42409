"""Greedy matching of detections to ground truth, all pairs of image and class at once, exactly as pycocotools does it.

Within a pair detections come by falling score. Each takes, among the ground truth that is still free and overlaps by
the threshold or more, the one it overlaps most, the last of equals; ground truth to be ignored is taken only if no
other is left, and a crowd is never used up. Pairs do not influence each other, so the first detections of all pairs are
matched together, then the second ones, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from aegl.metrics.iou import Edges

_STATE_SIZE = 1 << 21
"""Cells (pair x size range x threshold x ground truth) worked on at once; bounds the memory, not the result."""


@dataclass(frozen=True)
class _Group:
    """Pairs with about the same number of ground truths, those with most overlapping detections first.

    Args:
        width: ground truths of a pair at most.
        gt_first: ``[P]`` position of each pair's first ground truth.
        gt_count: ``[P]`` number of its ground truths.
        det_first: ``[P]`` where its detections begin in the list of overlapping ones.
        active: ``[steps]`` number of pairs that have a detection of each rank.
        rank_offsets: ``[steps + 1]`` where the edges of each rank begin; edges are sorted by their detection's rank.
        row: ``[E]`` pair of each edge.
        column: ``[E]`` ground truth of each edge, counted within its pair.
        iou: ``[E]``.
    """

    width: int
    gt_first: np.ndarray
    gt_count: np.ndarray
    det_first: np.ndarray
    active: np.ndarray
    rank_offsets: np.ndarray
    row: np.ndarray
    column: np.ndarray
    iou: np.ndarray


def greedy_match(
    edges: Edges,
    det_pair: np.ndarray,
    gt_pair: np.ndarray,
    gt_ignore: np.ndarray,
    gt_crowd: np.ndarray,
    thresholds: np.ndarray,
) -> np.ndarray:
    """Match every detection at every threshold and size range.

    Args:
        edges: overlaps of at least ``thresholds.min()``.
        det_pair: ``[D]`` int64 pair of each detection, sorted, within a pair by falling score.
        gt_pair: ``[G]`` int64 pair of each ground truth, sorted, within a pair in the file's order.
        gt_ignore: ``[A, G]`` bool, what to ignore in each size range.
        gt_crowd: ``[G]`` bool.
        thresholds: ``[T]`` float64.

    Returns:
        ``[A, T, D]`` int32 position of the matched ground truth, -1 where there is none.
    """
    match = np.full((len(gt_ignore), len(thresholds), len(det_pair)), -1, dtype=np.int32)
    overlapping, edge_det = np.unique(edges.det, return_inverse=True)
    for group in _groups(edges, edge_det, det_pair[overlapping], gt_pair, len(gt_ignore) * len(thresholds)):
        for rank, found in enumerate(_match_group(group, gt_ignore, gt_crowd, thresholds)):
            match[:, :, overlapping[group.det_first[: len(found)] + rank]] = np.moveaxis(found, 0, -1)
    return match


def _groups(
    edges: Edges, edge_det: np.ndarray, det_pair: np.ndarray, gt_pair: np.ndarray, cells_per_gt: int
) -> Iterator[_Group]:
    """Sort pairs into groups; ``edge_det`` and ``det_pair`` count overlapping detections only."""
    pairs, first, pair_of_det, num_dets = np.unique(
        det_pair, return_index=True, return_inverse=True, return_counts=True
    )
    edge_pair = pair_of_det[edge_det]
    edge_rank = edge_det - first[edge_pair]
    gt_first = np.searchsorted(gt_pair, pairs, side="left")
    gt_count = np.searchsorted(gt_pair, pairs, side="right") - gt_first
    width = 1 << np.ceil(np.log2(gt_count)).astype(np.int64)
    pair_order = np.lexsort((-num_dets, width))
    place = np.empty_like(pair_order)
    place[pair_order] = np.arange(len(pair_order))
    edge_order = np.lexsort((edge_rank, place[edge_pair]))
    edge_place = place[edge_pair][edge_order]
    for start, stop in _chunks(width[pair_order], cells_per_gt):
        members = pair_order[start:stop]
        low, high = np.searchsorted(edge_place, [start, stop])
        chosen = edge_order[low:high]
        chosen = chosen[np.argsort(edge_rank[chosen], kind="stable")]
        steps = int(num_dets[members].max())
        yield _Group(
            width=int(width[members[0]]),
            gt_first=gt_first[members],
            gt_count=gt_count[members],
            det_first=first[members],
            active=np.searchsorted(-num_dets[members], -np.arange(steps), side="left"),
            rank_offsets=np.searchsorted(edge_rank[chosen], np.arange(steps + 1)),
            row=place[edge_pair[chosen]] - start,
            column=edges.gt[chosen] - gt_first[edge_pair[chosen]],
            iou=edges.iou[chosen],
        )


def _chunks(widths: np.ndarray, cells_per_gt: int) -> Iterator[tuple[int, int]]:
    """Ranges of pairs of one width that fit the working memory together; ``widths`` is sorted."""
    start = 0
    while start < len(widths):
        same = int(np.searchsorted(widths, widths[start], side="right"))
        stop = min(same, start + max(1, _STATE_SIZE // (int(widths[start]) * cells_per_gt)))
        yield start, stop
        start = stop


def _match_group(
    group: _Group, gt_ignore: np.ndarray, gt_crowd: np.ndarray, thresholds: np.ndarray
) -> Iterator[np.ndarray]:
    """For each rank, ``[active, A, T]`` position of the ground truth matched by the pairs' detections of that rank."""
    columns = np.arange(group.width)
    gt = np.minimum(group.gt_first[:, None] + columns, gt_crowd.size - 1)
    regular = np.moveaxis(np.logical_not(gt_ignore[:, gt]), 0, 1)[:, :, None, :]
    reusable = gt_crowd[gt][:, None, None, :]
    free = np.empty((len(gt), len(gt_ignore), len(thresholds), group.width), dtype=bool)
    free[:] = (columns < group.gt_count[:, None])[:, None, None, :]
    for rank, active in enumerate(group.active):
        iou = np.full((active, group.width), -1.0)
        edges = slice(group.rank_offsets[rank], group.rank_offsets[rank + 1])
        iou[group.row[edges], group.column[edges]] = group.iou[edges]
        candidates = free[:active] & (iou[:, None, :] >= thresholds[:, None])[:, None]
        preferred = candidates & regular[:active]
        candidates = np.where(preferred.any(axis=-1, keepdims=True), preferred, candidates)
        overlap = np.where(candidates, iou[:, None, None, :], -1.0)
        best = group.width - 1 - np.argmax(overlap[..., ::-1], axis=-1)
        found = np.asarray(candidates.any(axis=-1))
        taken = (columns == best[..., None]) & found[..., None]
        free[:active] &= ~taken | reusable[:active]
        yield np.where(found, group.gt_first[:active, None, None] + best, -1)
