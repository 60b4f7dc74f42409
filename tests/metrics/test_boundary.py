"""Boundary AP: pixels against erosion of the whole image step by step, figures against official code with that IoU."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from aegl.errors import DataError
from aegl.metrics import evaluate
from aegl.metrics.boundary import Boundary, boundary_edges, boundary_iou, boundary_of
from aegl.metrics.iou import Edges

BANDS = {"class_band": np.zeros(5, dtype=int), "band_names": ("all",)}


def _rle(mask: np.ndarray) -> dict[str, Any]:
    rle: dict[str, Any] = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return rle


def _reference(mask: np.ndarray) -> np.ndarray:
    """The mask less what is left of it when its outermost pixels are taken away again and again."""
    height, width = mask.shape
    inner = np.pad(mask.astype(bool), 1)
    for _ in range(max(1, round(0.02 * np.sqrt(height**2 + width**2)))):
        shrunk = np.zeros_like(inner)
        shrunk[1:-1, 1:-1] = np.min(
            [inner[1 + y : height + 1 + y, 1 + x : width + 1 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)], axis=0
        )
        inner = shrunk
    return mask.astype(bool) & ~inner[1:-1, 1:-1]


def _full(boundary: Boundary, shape: tuple[int, int]) -> np.ndarray:
    image = np.zeros(shape, dtype=bool)
    height, width = boundary.pixels.shape
    image[boundary.top : boundary.top + height, boundary.left : boundary.left + width] = boundary.pixels
    return image


def _blocks(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """A few rectangles, some over the edge of the image, with holes."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, dtype=np.uint8)
    for value in rng.integers(0, 3, rng.integers(1, 6)) > 0:
        top, left = (int(rng.integers(-20, side)) for side in shape)
        height, width = (int(v) for v in rng.integers(1, 90, 2))
        mask[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = value
    return mask


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 1)))
def test_any_small_mask(mask: np.ndarray) -> None:
    boundary = boundary_of(_rle(mask))
    np.testing.assert_array_equal(_full(boundary, mask.shape), _reference(mask))
    assert boundary.area == boundary.pixels.sum()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 150), width=st.integers(1, 150))
def test_large_masks_and_their_overlap(seed: int, height: int, width: int) -> None:
    masks = [_blocks(seed + i, (height, width)) for i in (0, 1)]
    a, b = (boundary_of(_rle(mask)) for mask in masks)
    for boundary, mask in ((a, masks[0]), (b, masks[1])):
        np.testing.assert_array_equal(_full(boundary, mask.shape), _reference(mask))
    full_a, full_b = (_reference(mask) for mask in masks)
    union = np.count_nonzero(full_a | full_b)
    assert boundary_iou(a, b) == pytest.approx(np.count_nonzero(full_a & full_b) / union if union else 0)


def test_a_mask_cut_off_by_the_edge_of_the_image_has_its_boundary_there() -> None:
    boundary = boundary_of(_rle(np.ones((100, 100))))
    assert _full(boundary, (100, 100))[[0, 2, 3, 50, 96, 97, 99], 50].tolist() == [1, 1, 0, 0, 0, 1, 1]


def _square(side: int, hole: int) -> dict[str, Any]:
    mask = np.zeros((100, 100), dtype=np.uint8)
    mask[5 : 5 + side, 5 : 5 + side] = 1
    mask[10 : 10 + hole, 10 : 10 + hole] = 0
    return _rle(mask)


@pytest.mark.parametrize(
    ("side", "hole", "crowd", "smaller"),
    [
        pytest.param(90, 60, False, "masks", id="a hole takes more of the mask than of the boundary"),
        pytest.param(88, 0, False, "boundaries", id="a thin margin takes more of the boundary"),
        pytest.param(86, 0, True, "masks", id="crowds keep the overlap of masks"),
        pytest.param(66, 0, False, None, id="what overlaps too little is left out"),
    ],
)
def test_two_masks_overlap_by_the_smaller_of_both(side: int, hole: int, crowd: bool, smaller: str | None) -> None:
    det, gt = _square(side, hole), _square(90, 0)
    of_masks = float(mask_utils.iou([det], [gt], [0])[0, 0])
    of_boundaries = boundary_iou(boundary_of(det), boundary_of(gt))
    assert of_masks > 0.5
    first = np.zeros(1, dtype=np.int64)
    edges = boundary_edges(
        Edges(first, first, np.array([of_masks])), lambda _: det, lambda _: gt, np.array([crowd]), 0.5
    )
    expected = {"masks": [of_masks], "boundaries": [of_boundaries], None: []}[smaller]
    assert edges.iou.tolist() == expected
    assert of_masks != of_boundaries


def _boundary_rle(rle: dict[str, Any]) -> dict[str, Any]:
    return _rle(_reference(mask_utils.decode(rle)))


class _BoundaryCoco(COCOeval):  # type: ignore[misc]
    """pycocotools with the overlap of the paper."""

    def computeIoU(self, imgId: int, catId: int) -> Any:
        ious = np.array(super().computeIoU(imgId, catId))
        gt, dt = self._gts[imgId, catId], self._dts[imgId, catId]
        if not len(gt) or not len(dt):
            return ious
        dt = [dt[i] for i in np.argsort([-d["score"] for d in dt], kind="mergesort")][: self.params.maxDets[-1]]
        crowd = [int(g["iscrowd"]) for g in gt]
        edges = [[_boundary_rle(annotation["segmentation"]) for annotation in side] for side in (dt, gt)]
        smaller = np.minimum(ious, mask_utils.iou(*edges, crowd))
        return np.where(np.array(crowd, dtype=bool), ious, smaller)


def _official_coco(dataset: dict[str, Any], results: list[Any], _: Path) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(dataset)
        gt.createIndex()
        judge = _BoundaryCoco(gt, gt.loadRes(copy.deepcopy(results)), "segm")
        judge.evaluate()
        judge.accumulate()
    return np.asarray(judge.eval["precision"][..., -1])


def _official_lvis(dataset: dict[str, Any], results: list[Any], folder: Path) -> np.ndarray:
    from lvis import LVIS, LVISEval, LVISResults

    class BoundaryLvis(LVISEval):  # type: ignore[misc]
        def compute_iou(self, img_id: int, cat_id: int) -> Any:
            ious = super().compute_iou(img_id, cat_id)
            gt, dt = self._get_gt_dt(img_id, cat_id)
            if not len(gt) or not len(dt):
                return ious
            dt = [dt[i] for i in np.argsort([-d["score"] for d in dt], kind="mergesort")]
            edges = [[_boundary_rle(annotation["segmentation"]) for annotation in side] for side in (dt, gt)]
            return np.minimum(ious, mask_utils.iou(*edges, [0] * len(gt)))

    (folder / "gt.json").write_text(json.dumps(dataset))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "float", float, raising=False)
        gt = LVIS(str(folder / "gt.json"))
        judge = BoundaryLvis(gt, LVISResults(gt, copy.deepcopy(results)), "segm")
        judge.run()
    return np.asarray(judge.eval["precision"])


@pytest.mark.parametrize(("protocol", "official"), [("coco", _official_coco), ("lvis", _official_lvis)])
def test_equals_official_code_with_the_papers_overlap(
    protocol: str,
    official: Callable[..., np.ndarray],
    tmp_path: Path,
    make_dataset: Any,
    make_results: Any,
    store_of: Any,
    table_of: Any,
) -> None:
    dataset = make_dataset(seed=70, num_images=10)
    results = make_results(dataset, seed=71)
    store = store_of(dataset)
    table = table_of(results, store)
    ours = evaluate(store, table, protocol=protocol, iou_type="boundary", **BANDS)
    np.testing.assert_allclose(ours.precision, official(dataset, results, tmp_path), rtol=0, atol=1e-12)
    masks = evaluate(store, table, protocol=protocol, iou_type="segm", **BANDS)
    assert 0 < ours.summary["AP"] < masks.summary["AP"]


def test_boundaries_need_masks(make_dataset: Any, make_results: Any, store_of: Any, table_of: Any) -> None:
    dataset = make_dataset(seed=70)
    store = store_of(dataset)
    table = table_of(make_results(dataset, seed=71, masks=False), store)
    with pytest.raises(DataError, match="hold no masks"):
        evaluate(store, table, protocol="coco", iou_type="boundary", **BANDS)
