import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from aegl.metrics import rle
from aegl.metrics.rle import MaskColumn


def _column(masks: list[np.ndarray]) -> MaskColumn:
    return MaskColumn.from_counts([mask_utils.encode(np.asfortranarray(m))["counts"] for m in masks])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_pixel_counts_and_boxes_equal_the_pixels(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sizes = np.array(data.draw(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=6)))
    cover = data.draw(st.floats(0, 1))
    masks = [(rng.random(size) < cover).astype(np.uint8) for size in sizes]
    column = _column(masks)
    foreground, total = rle.pixel_counts(column)
    np.testing.assert_array_equal(foreground, [m.sum() for m in masks])
    np.testing.assert_array_equal(total, sizes.prod(axis=1))
    for box, mask in zip(rle.boxes_of(column, sizes), masks, strict=True):
        ys, xs = np.nonzero(mask)
        if len(ys):
            assert box.tolist() == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_more_masks_than_pycocotools_takes_at_once_and_more_bytes_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rle, "_CHUNK_BYTES", 100)
    rng = np.random.default_rng(0)
    masks = [(rng.random((30, 20)) < 0.5).astype(np.uint8) for _ in range(300)]
    column = _column(masks)
    np.testing.assert_array_equal(rle.pixel_counts(column)[0], [m.sum() for m in masks])
    boxes = rle.boxes_of(column, np.full((300, 2), (30, 20)))
    assert (boxes[:, 2:] > 15).all()


@pytest.mark.parametrize("counts", [b"", b"P", b"\x00\x01", b"zzzzzz", b"5O"], ids=repr)
def test_broken_strings_do_not_cover_an_image(counts: bytes) -> None:
    good = mask_utils.encode(np.asfortranarray(np.eye(8, dtype=np.uint8)))["counts"]
    total = rle.pixel_counts(MaskColumn.from_counts([good, counts]))[1]
    assert total[0] == 64
    assert total[1] != 64


def test_every_form_of_segmentation_encodes_alike() -> None:
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[4:12, 5:25] = 1
    counts = mask_utils.encode(np.asfortranarray(mask))["counts"]
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    polygon = [5.0, 4.0, 25.0, 4.0, 25.0, 12.0, 5.0, 12.0]
    forms = [
        {"size": [20, 30], "counts": counts},
        {"size": [20, 30], "counts": counts.decode()},
        {"size": [20, 30], "counts": runs},
        [polygon],
        [np.reshape(polygon, (-1, 2))],
    ]
    assert {rle.encode(form, 20, 30) for form in forms} == {counts}


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "neither"),
        ([], "neither"),
        ([[1.0, 2.0]], "polygon"),
        ([[1.0, 2.0, 3.0, 4.0, float("nan"), 1.0]], "polygon"),
        ({"size": [20, 31], "counts": "x"}, r"\[20, 31\]"),
        ({"counts": "x"}, "size is None"),
        ({"size": [20, 30]}, "no counts"),
        ({"size": [20, 30], "counts": [10, 5]}, "15 pixels"),
    ],
)
def test_unusable_segmentations(segmentation: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rle.encode(segmentation, 20, 30)
