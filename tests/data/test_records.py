"""What keeps a record of an annotation file from being used, and how it is told."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as coco_mask

from aegl.data.masks import rle_pixels
from aegl.data.records import SHOWN, read_annotation_file, record_problems, refuse
from aegl.data.segmentations import compressed_counts, find_broken
from aegl.errors import DataError

MISSING = object()
"""In the place of a value: the key is left out."""


def broken(content: dict[str, Any], table: str, row: int, key: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    if value is MISSING:
        del changed[table][row][key]
    else:
        changed[table][row][key] = value
    return changed


def test_a_good_file_has_no_problems(content: dict[str, Any]) -> None:
    assert list(record_problems(content)) == []


@pytest.mark.parametrize(
    ("key", "value", "kind", "message"),
    [
        ("id", MISSING, "missing key", "record 0 of images lacks id"),
        ("height", MISSING, "missing key", "record 0 of images lacks height"),
        ("id", "5", "bad id", 'record 0 of images: id "5" is not a whole number'),
        ("id", [5], "bad id", "record 0 of images: id [5] is not a whole number"),
        ("id", True, "bad id", "record 0 of images: id true is not a whole number"),
        ("height", 0, "bad image size", "image 5: height 0 is not a whole number of pixels above 0"),
        ("width", -20, "bad image size", "image 5: width -20 is not a whole number of pixels above 0"),
        ("width", 20.5, "bad image size", "image 5: width 20.5 is not a whole number of pixels above 0"),
        ("height", "10", "bad image size", 'image 5: height "10" is not a whole number of pixels above 0'),
        ("height", None, "bad image size", "image 5: height null is not a whole number of pixels above 0"),
        ("height", 2**40, "bad image size", "image 5: height 1099511627776 is not a whole number of pixels above 0"),
        ("file_name", 7, "bad file name", "image 5: file_name 7 is no text"),
        ("file_name", "\ud800.jpg", "bad file name", 'image 5: file_name "\\ud800.jpg" is no text'),
        ("coco_url", "a\0b", "bad file name", 'image 5: coco_url "a\\u0000b" is no text'),
        ("neg_category_ids", 20, "bad category list", "image 5: neg_category_ids 20 is not a list of category ids"),
        ("neg_category_ids", [20, 7, "x"], "unknown category", 'image 5: neg_category_ids has [7, "x"], not among'),
        ("not_exhaustive_category_ids", [8], "unknown category", "image 5: not_exhaustive_category_ids has [8], not"),
    ],
)
def test_images(content: dict[str, Any], key: str, value: Any, kind: str, message: str) -> None:
    content["annotations"] = []
    (problem,) = record_problems(broken(content, "images", 0, key, value))
    assert problem.kind == kind and problem.message.startswith(message)
    assert problem.id == (5 if message.startswith("image 5") else None)


@pytest.mark.parametrize(
    ("key", "value", "kind", "message"),
    [
        ("bbox", MISSING, "missing key", "record 0 of annotations lacks bbox"),
        ("id", 1.5, "bad id", "record 0 of annotations: id 1.5 is not a whole number"),
        ("id", 10**30, "bad id", "record 0 of annotations: id 1000000000000000000000000000000 is not a whole number"),
        ("image_id", 99, "unknown image", "annotation 101: image_id 99 is not among the images"),
        ("image_id", [5], "unknown image", "annotation 101: image_id [5] is not among the images"),
        ("category_id", 99, "unknown category", "annotation 101: category_id 99 is not among the categories"),
        ("category_id", None, "unknown category", "annotation 101: category_id null is not among the categories"),
        ("bbox", None, "bad box", "annotation 101: bbox null is not x, y, width, height in finite numbers"),
        ("bbox", [1, 2, 3], "bad box", "annotation 101: bbox [1, 2, 3] is not"),
        ("bbox", [1, 2, 3, float("nan")], "bad box", "annotation 101: bbox [1, 2, 3, NaN] is not"),
        ("bbox", [1, 2, float("inf"), 4], "bad box", "annotation 101: bbox [1, 2, Infinity, 4] is not"),
        ("bbox", [1, 2, 10**400, 4], "bad box", "annotation 101: bbox [1, 2, 10"),
        ("bbox", [1, 2, "3", 4], "bad box", 'annotation 101: bbox [1, 2, "3", 4] is not'),
        ("bbox", [1, 2, True, 4], "bad box", "annotation 101: bbox [1, 2, true, 4] is not"),
        ("bbox", [1, 2, -3, 4], "bad box", "annotation 101: bbox [1, 2, -3, 4] is not"),
        ("area", "big", "bad area", 'annotation 101: area "big" is not a finite number from 0'),
        ("area", float("nan"), "bad area", "annotation 101: area NaN is not a finite number from 0"),
        ("area", -1, "bad area", "annotation 101: area -1 is not a finite number from 0"),
        ("iscrowd", 2, "bad flag", "annotation 101: iscrowd 2 is neither 0 nor 1"),
        ("iscrowd", "0", "bad flag", 'annotation 101: iscrowd "0" is neither 0 nor 1'),
        ("ignore", [], "bad flag", "annotation 101: ignore [] is neither 0 nor 1"),
        ("segmentation", "x", "broken segmentation", 'annotation 101: segmentation "x" is neither a list of polygons'),
        ("segmentation", [1, 2, 3, 4, 5, 6], "broken polygon", "annotation 101: segmentation holds 1 where a polygon"),
        ("segmentation", [[1, 2, 3, 4, 5]], "broken polygon", "annotation 101: a polygon has 5 numbers, but x and y"),
        ("segmentation", [[1, 2, 3, 4, 5, "6"]], "broken polygon", 'annotation 101: a polygon has "6", which is not'),
        ("segmentation", [[[1, 2], [3, 4]]], "broken polygon", "annotation 101: a polygon has [1, 2], which is not"),
        ("segmentation", [[1, 2, 3, 4, 5, float("nan")]], "broken polygon", "annotation 101: a polygon has NaN, which"),
        ("segmentation", {"size": [8, 6]}, "broken RLE", "annotation 101: its RLE segmentation has no counts"),
        (
            "segmentation",
            {"size": [6, 8], "counts": [48]},
            "wrong RLE size",
            "annotation 101: its RLE is of [6, 8], the",
        ),
        (
            "segmentation",
            {"size": 8, "counts": [48]},
            "wrong RLE size",
            "annotation 101: its RLE is of 8, the image of",
        ),
        (
            "segmentation",
            {"size": [8, 6], "counts": [47]},
            "broken RLE",
            "annotation 101: its RLE is of 47 pixels, the",
        ),
        ("segmentation", {"size": [8, 6], "counts": [49, -1]}, "broken RLE", "annotation 101: its RLE cannot be dec"),
        ("segmentation", {"size": [8, 6], "counts": ["48"]}, "broken RLE", "annotation 101: its RLE cannot be decoded"),
        (
            "segmentation",
            {"size": [8, 6], "counts": "8d0"},
            "broken RLE",
            "annotation 101: its RLE is of 28 pixels, the",
        ),
        ("segmentation", {"size": [8, 6], "counts": ""}, "broken RLE", "annotation 101: its RLE is of 0 pixels, the"),
    ],
)
def test_annotations(content: dict[str, Any], key: str, value: Any, kind: str, message: str) -> None:
    (problem,) = record_problems(broken(content, "annotations", 0, key, value))
    assert problem.kind == kind and problem.message.startswith(message)
    assert problem.id == (101 if message.startswith("annotation 101") else None)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("id", None, "record 2 of categories: id null is not a whole number"),
        ("name", "\ud800", 'category 20: name "\\ud800" is no text'),
        ("image_count", "many", 'category 20: image_count "many" is not a whole number from 0'),
        ("instance_count", -1, "category 20: instance_count -1 is not a whole number from 0"),
        ("instance_count", float("nan"), "category 20: instance_count NaN is not a whole number from 0"),
    ],
)
def test_categories(content: dict[str, Any], key: str, value: Any, message: str) -> None:
    content["images"][0]["neg_category_ids"] = []
    (problem,) = record_problems(broken(content, "categories", 2, key, value))
    assert problem.message == message


@pytest.mark.parametrize(("table", "key"), [("images", 9), ("annotations", 101), ("categories", 20)])
def test_double_ids(content: dict[str, Any], table: str, key: int) -> None:
    content[table] += [r for r in content[table] if r["id"] == key] * 2
    problems = [problem for problem in record_problems(content) if problem.kind == "double id"]
    word = {"images": "image", "annotations": "annotation", "categories": "category"}[table]
    assert problems == [("double id", key, f"{word} id {key} occurs 3 times")]


@pytest.mark.parametrize(("record", "shown"), [(None, "null"), ([1], "[1]"), ("x", '"x"')])
@pytest.mark.parametrize("table", ["images", "annotations", "categories"])
def test_records_that_are_none(content: dict[str, Any], table: str, record: Any, shown: str) -> None:
    content[table].append(record)
    position = len(content[table]) - 1
    (problem,) = record_problems(content)
    assert problem.message == f"record {position} of {table} is {shown}, not an object"


def test_whole_numbers_may_be_written_with_a_point(content: dict[str, Any]) -> None:
    content["images"][1]["id"] = 2.0
    content["images"][1]["height"] = 8.0
    content["annotations"][0]["image_id"] = 2.0
    assert list(record_problems(content)) == []


@pytest.mark.parametrize("value", [None, [], [[]], [[1, 2]], [[1, 2, 3, 4]]])
def test_segmentations_of_no_area_can_be_read(value: Any) -> None:
    assert find_broken(value, (8, 6)) is None


class TestRefuse:
    def test_nothing_wrong_is_nothing(self) -> None:
        refuse(Path("x.json"), [])

    def test_it_names_the_file_and_the_first_problems(self, content: dict[str, Any]) -> None:
        content["annotations"] = [{**content["annotations"][3], "id": k, "category_id": 7} for k in range(SHOWN + 3)]
        with pytest.raises(DataError) as caught:
            refuse(Path("some/x.json"), list(record_problems(content)))
        lines = str(caught.value).splitlines()
        assert lines[0] == f"some/x.json: {SHOWN + 3} problems with its records:"
        assert lines[1] == "  annotation 0: category_id 7 is not among the categories"
        assert lines[-1] == "  and 3 more; `aegl data check data=some/x.json` shows more" and len(lines) == SHOWN + 2


class TestReading:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"", "not valid JSON (line 1, column 1"),
            (b'{"images": [\n {"id": 1},', "not valid JSON (line 2, column 12"),
            (b'{"images": []} extra', "not valid JSON (line 1, column 16: Extra data)"),
            (b"\xff\xff\xff\xff", "not a text file, so no JSON"),
            (b"[" * 100_000, "no JSON of annotations"),
            (b"[1]", "holds a list, not the tables images, annotations, categories"),
            (b'{"images": [], "annotations": []}', "has no list `categories`"),
            (b'{"images": {}, "annotations": [], "categories": []}', "has no list `images`"),
        ],
    )
    def test_what_is_no_annotation_file(self, text: bytes, message: str, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_bytes(text)
        with pytest.raises(DataError) as caught:
            read_annotation_file(tmp_path / "x.json")
        assert str(caught.value).startswith(f"{tmp_path / 'x.json'}: {message}")

    def test_a_number_of_too_many_digits(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text("1" * (sys.get_int_max_str_digits() + 1))
        with pytest.raises(DataError, match="no JSON of annotations"):
            read_annotation_file(tmp_path / "x.json")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
            read_annotation_file(tmp_path)

    def test_every_truncation_is_told(self, content: dict[str, Any], tmp_path: Path) -> None:
        text = json.dumps(content).encode()
        for length in range(0, len(text), 97):
            (tmp_path / "x.json").write_bytes(text[:length])
            with pytest.raises(DataError, match="is the file cut short"):
                read_annotation_file(tmp_path / "x.json")


class TestRunLengths:
    masks = npst.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1))

    @given(masks)
    def test_those_of_pycocotools_cover_the_image(self, mask: np.ndarray) -> None:
        rle = coco_mask.encode(np.asfortranarray(mask))
        assert rle_pixels(rle["counts"]) == mask.size
        assert find_broken({"size": list(mask.shape), "counts": rle["counts"].decode()}, mask.shape) is None

    @given(st.lists(st.integers(0, 2**20), min_size=1, max_size=30))
    def test_uncompressed_ones_are_compressed_as_pycocotools_does(self, runs: list[int]) -> None:
        size = (1, max(1, sum(runs)))
        if sum(runs) == 0:
            return
        counts = compressed_counts({"counts": runs}, size)
        assert rle_pixels(counts) == sum(runs)
        area = int(coco_mask.area({"size": list(size), "counts": counts}))
        assert area == sum(runs[1::2])

    @given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
    def test_what_is_accepted_decodes_to_the_image(self, text: str) -> None:
        try:
            pixels = rle_pixels(text)
        except ValueError:
            return
        if 0 < pixels <= 10_000:
            decoded = coco_mask.decode({"size": [1, pixels], "counts": text.encode()})
            assert decoded.shape == (1, pixels)

    @pytest.mark.parametrize(
        ("counts", "message"),
        [
            ("8d0~", "the character '~' has no meaning"),
            ("8d0\xe9", r"the character '\\xe9' has no meaning"),
            ("8d0 ", "the character ' ' has no meaning"),
            ("8d", "its text is cut short"),
            ("ooooooooo0", "a run length has too many digits"),
            ("8O", "a run length is -1"),
        ],
    )
    def test_others_are_refused(self, counts: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            rle_pixels(counts)
