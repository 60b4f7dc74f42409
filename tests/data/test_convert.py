"""Data sets in other formats hold the same objects, and what a format cannot hold is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from lvis import LVIS
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from aegl.config import load_config
from aegl.data.convert import yolo
from aegl.data_tasks import data_convert, open_source
from aegl.errors import ConfigError, DataError
from aegl.progress import SilentProgress

Content = dict[str, Any]
QUIET = SilentProgress()


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Converts into a folder of that name below the test's."""
    return lambda data, to, name, **keys: data_convert(
        {"data": str(data), "to": to, "output": str(tmp_path / name), **keys}, QUIET
    )


@pytest.fixture
def plain(content: Content, write: Any, tmp_path: Path, draw: Any) -> Path:
    """A folder of COCO files with images, exhaustively annotated: polygons, one with two rings, an RLE and a crowd."""
    for image in content["images"]:
        image.pop("neg_category_ids", None)
        image.pop("not_exhaustive_category_ids", None)
        draw(tmp_path / "in" / "images" / image["file_name"], (image["width"], image["height"]))
    content["annotations"][3]["segmentation"] = [[3, 4, 8, 4, 8, 10, 3, 10]]
    write(content, "in/train.json")
    val = {**content, "annotations": [content["annotations"][0]]}
    write(val, "in/val.json")
    return tmp_path / "in"


def objects(data: Path, split: str = "train") -> list[tuple[Any, ...]]:
    """Image name, class, box and whether it is to be ignored, of every object but crowds, in a comparable order."""
    store = open_source(load_config({"data": str(data)})).open(split)
    found = []
    for row in np.flatnonzero(~np.asarray(store.ann_crowd)):
        image = Path(store.image_name(int(store.ann_image[row]))).name
        box = tuple(np.round(store.ann_boxes_xywh[row], 6).tolist())
        found.append((image, store.categories.names[store.ann_labels[row]], box, bool(store.ann_ignore[row])))
    return sorted(found)


class TestCoco:
    def test_nothing_is_lost(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        result = convert(plain, "coco", "out")
        assert result["read_as"] == "coco" and result["splits"] == {
            "train": {"images": 3, "left_out": {}},
            "val": {"images": 3, "left_out": {}},
        }
        for split in ("train", "val"):
            before = open_source(load_config({"data": str(plain)})).open(split)
            after = open_source(load_config({"data": str(tmp_path / "out" / "data.yaml")})).open(split)
            for column in ("image_ids", "image_sizes", "ann_ids", "ann_labels", "ann_boxes_xywh", "ann_areas"):
                np.testing.assert_array_equal(getattr(before, column), getattr(after, column))
            np.testing.assert_array_equal(before.ann_crowd, after.ann_crowd)
            np.testing.assert_array_equal(before.ann_ignore, after.ann_ignore)
            for row in range(before.num_annotations):
                np.testing.assert_equal(before.segmentation(row), after.segmentation(row))
            assert [after.image_path(i) for i in range(3)] == [before.image_path(i) for i in range(3)]

    def test_pycocotools_reads_it(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        convert(plain, "coco", "out")
        coco = COCO(tmp_path / "out" / "train.json")
        assert len(coco.anns) == 4 and coco.annToMask(coco.anns[102]).shape == (8, 6)
        assert sorted(ann["iscrowd"] for ann in coco.anns.values()) == [0, 0, 0, 1]

    def test_federated_fields_are_counted_as_lost(self, content: Content, write: Any, convert: Any) -> None:
        result = convert(write(content), "coco", "out")
        assert result["read_as"] == "lvis"
        assert result["splits"] == {"train": {"images": 3, "left_out": {"federated fields of images": 3}}}


class TestLvis:
    def test_what_is_exhaustive_stays_so(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        result = convert(plain, "lvis", "out")
        assert result["splits"]["train"]["left_out"] == {"crowds": 1}
        written = json.loads((tmp_path / "out" / "train.json").read_text())
        negative = {image["id"]: image["neg_category_ids"] for image in written["images"]}
        assert negative == {5: [20, 30], 2: [20], 9: [10, 20, 30]}
        unsure = {image["id"]: image["not_exhaustive_category_ids"] for image in written["images"]}
        assert unsure == {5: [10], 2: [], 9: []}  # where the crowd was

    def test_counts_are_those_of_training(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        convert(plain, "lvis", "out")
        for split in ("train", "val"):
            categories = json.loads((tmp_path / "out" / f"{split}.json").read_text())["categories"]
            counts = {c["id"]: (c["image_count"], c["instance_count"], c["frequency"]) for c in categories}
            assert counts == {10: (2, 2, "r"), 20: (0, 0, "r"), 30: (1, 1, "r")}

    def test_the_official_package_reads_it(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        convert(plain, "lvis", "out")
        official = LVIS(str(tmp_path / "out" / "train.json"))
        assert sorted(official.anns) == [101, 102, 104] and len(official.cats) == 3

    def test_federated_fields_are_kept(self, content: Content, write: Any, convert: Any, tmp_path: Path) -> None:
        convert(write(content), "lvis", "out")
        images = {i["id"]: i for i in json.loads((tmp_path / "out" / "train.json").read_text())["images"]}
        assert [images[key]["neg_category_ids"] for key in (5, 2, 9)] == [[20, 30], [], []]
        assert [images[key]["not_exhaustive_category_ids"] for key in (5, 2, 9)] == [[], [10], []]


class TestYolo:
    def test_there_and_back(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        result = convert(plain, "yolo", "yolo")
        assert result["splits"]["train"]["left_out"] == {"crowds": 1, "masks that are run lengths": 1}
        back = convert(tmp_path / "yolo", "coco", "back")
        assert back["read_as"] == "yolo" and set(back["splits"]) == {"train", "val"}
        for split in ("train", "val"):
            # The box of an outline is that of its corners, and YOLO knows no objects to ignore.
            extents = {(1.25, 2.5, 3.0, 4.125): (1.0, 2.0, 3.25, 4.625)}
            expected = [(image, name, extents.get(box, box), False) for image, name, box, _ in objects(plain, split)]
            assert objects(tmp_path / "back" / "data.yaml", split) == sorted(expected)

    def test_its_files_are_where_yolo_looks(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        convert(plain, "yolo", "out")
        described = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
        assert described == {
            "train": "images/train", "val": "images/val", "names": {0: "ant", 1: "bee", 2: "emu"},
        }  # fmt: skip
        assert (tmp_path / "out" / "images" / "train" / "two.jpg").resolve() == plain / "images" / "two.jpg"
        lines = (tmp_path / "out" / "labels" / "train" / "five.txt").read_text().splitlines()
        assert lines == ["0 0.15 0.4 0.4 0.4 0.4 1 0.15 1"]
        assert (tmp_path / "out" / "labels" / "train" / "nine.txt").read_text() == ""
        # Beside an outline a box is written as one: a file of polygons holds nothing else.
        lines = (tmp_path / "out" / "labels" / "train" / "two.txt").read_text().splitlines()
        assert lines[1] == "2 0 0 1 0 1 1 0 1" and len(lines) == 2

    def test_boxes(self, convert: Any, tmp_path: Path, draw: Any) -> None:
        draw(tmp_path / "y" / "images" / "a" / "x.png", (40, 20))
        _label(tmp_path / "y" / "labels" / "a" / "x.txt", "1 0.5 0.5 0.25 0.5\n\n0 0 0 1 0 1 1\n")
        _describe(tmp_path / "y", train="images/a", names=["p", "q"])
        convert(tmp_path / "y", "coco", "out")
        written = json.loads((tmp_path / "out" / "train.json").read_text())
        first, second = written["annotations"]
        assert (first["category_id"], first["bbox"], first["area"]) == (2, [15, 5, 10, 10], 100)
        assert first["segmentation"] == []
        assert (second["category_id"], second["bbox"], second["area"]) == (1, [0, 0, 40, 20], 400)
        assert second["segmentation"] == [[0, 0, 40, 0, 40, 20]]

    def test_the_last_folder_images_is_the_one_exchanged(self, convert: Any, tmp_path: Path, draw: Any) -> None:
        root = tmp_path / "images" / "y"
        draw(root / "images" / "x.png", (40, 20))
        _label(root / "labels" / "x.txt", "0 0.5 0.5 0.25 0.5\n")
        _describe(root, train="images", names=["p"])
        convert(root, "coco", "out")
        assert len(json.loads((tmp_path / "out" / "train.json").read_text())["annotations"]) == 1

    def test_a_list_of_images_is_a_split(self, convert: Any, tmp_path: Path, draw: Any) -> None:
        draw(tmp_path / "y" / "images" / "x.png", (4, 2))
        draw(tmp_path / "y" / "images" / "z.png", (4, 2))
        (tmp_path / "y" / "list.txt").write_text("images/z.png\n")
        _describe(tmp_path / "y", val="list.txt", names={0: "p"})
        result = convert(tmp_path / "y", "voc", "out")
        assert result["splits"] == {"val": {"images": 1, "left_out": {}}}

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("2 0 0 1 1", "class 2 is not a number from 0 to 1"),
            ("p 0 0 1 1", "class p is not a number from 0 to 1"),
            ("-1 0 0 1 1", "class -1 is not"),
            ("0 0 0 1 x", "could not convert"),
            ("0 0 0 1 nan", "has a number that is not finite"),
            ("0 0.5 0.5 -1 1", "its box has a negative side"),
            ("0 0 0 1", "has 3 numbers after the class"),
            ("0 0 0 1 1 0 1 1", "has 7 numbers after the class"),
            ("0", "has 0 numbers after the class"),
        ],
    )
    def test_a_bad_line_is_named(self, line: str, message: str, convert: Any, tmp_path: Path, draw: Any) -> None:
        draw(tmp_path / "y" / "images" / "x.png", (40, 20))
        _label(tmp_path / "y" / "labels" / "x.txt", f"0 0.5 0.5 1 1\n{line}\n")
        _describe(tmp_path / "y", train="images", names=["p", "q"])
        with pytest.raises(DataError) as caught:
            convert(tmp_path / "y", "coco", "out")
        assert str(caught.value).startswith(f"{tmp_path / 'y' / 'labels' / 'x.txt'}: line 2: {message}")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("names", [[], 7, {1: "p"}, {"a": "p"}])
    def test_bad_names_are_told(self, names: Any, convert: Any, tmp_path: Path) -> None:
        _describe(tmp_path / "y", train="images", names=names)
        with pytest.raises(DataError, match="names: must be a list of class names"):
            convert(tmp_path / "y", "coco", "out")

    def test_a_folder_that_is_not_there(self, convert: Any, tmp_path: Path) -> None:
        _describe(tmp_path / "y", train="images/nowhere", names=["p"])
        with pytest.raises(DataError, match=r"train: .*nowhere: neither a folder of images nor a text file"):
            convert(tmp_path / "y", "coco", "out")

    def test_an_image_that_is_none(self, convert: Any, tmp_path: Path) -> None:
        _label(tmp_path / "y" / "images" / "x.png", "no image")
        _describe(tmp_path / "y", train="images", names=["p"])
        with pytest.raises(DataError, match=r"x.png: the image cannot be read"):
            convert(tmp_path / "y", "coco", "out")

    corners = npst.arrays(np.int64, st.tuples(st.integers(3, 6), st.just(2)), elements=st.integers(0, 30))

    @settings(max_examples=60, deadline=None)
    @given(polygons=st.lists(corners, min_size=1, max_size=3), gaps=st.lists(st.integers(0, 3), min_size=3, max_size=3))
    def test_a_seam_covers_what_the_polygons_cover(self, polygons: list[np.ndarray], gaps: list[int]) -> None:
        """Of polygons that do not overlap: within one another holes would arise."""
        apart = [polygon + np.array([40 * k + gaps[k], 0]) for k, polygon in enumerate(polygons)]
        joined = yolo._joined([polygon.astype(float) for polygon in apart])
        assert abs(_signed_area(joined)) == pytest.approx(sum(abs(_signed_area(polygon)) for polygon in apart))
        assert set(map(tuple, joined.tolist())) == set(map(tuple, np.concatenate(apart).tolist()))


class TestVoc:
    def test_there_and_back(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        result = convert(plain, "voc", "voc")
        assert result["splits"]["train"]["left_out"] == {"crowds": 1, "masks": 3}
        back = convert(tmp_path / "voc", "coco", "back")
        assert back["read_as"] == "voc"
        # Boxes in whole pixels; the class without objects is nowhere in VOC.
        assert objects(tmp_path / "back" / "data.yaml") == [
            ("five.jpg", "ant", (3.0, 4.0, 5.0, 6.0), True),
            ("two.jpg", "ant", (1.0, 2.0, 3.0, 5.0), False),
            ("two.jpg", "emu", (0.0, 0.0, 6.0, 8.0), False),
        ]
        names = open_source(load_config({"data": str(tmp_path / "back" / "data.yaml")})).open("val").categories.names
        assert names == ("ant", "emu")

    def test_its_form(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        convert(plain, "voc", "out")
        xml = (tmp_path / "out" / "Annotations" / "five.xml").read_text()
        for part in ("<filename>five.jpg</filename>", "<width>20</width>", "<xmin>4</xmin>", "<ymax>10</ymax>",
                     "<difficult>1</difficult>"):  # fmt: skip
            assert part in xml
        assert (tmp_path / "out" / "ImageSets" / "Main" / "train.txt").read_text().split() == ["five", "two", "nine"]
        assert (tmp_path / "out" / "JPEGImages" / "two.jpg").resolve() == plain / "images" / "two.jpg"

    def test_a_box_is_at_least_a_pixel_inside_the_image(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        content = json.loads((plain / "train.json").read_text())
        boxes = ([1.2, 2.2, 0.2, 0.1], [0, 0, 0, 0], [5.4, 7, 3, 9], [-3, 4, 1, 1])
        for annotation, box in zip(content["annotations"], boxes, strict=True):
            annotation.update(bbox=box, iscrowd=0)
        (plain / "train.json").write_text(json.dumps(content))
        convert(plain, "voc", "voc")
        convert(tmp_path / "voc", "coco", "back")
        found = sorted((image, box) for image, _, box, _ in objects(tmp_path / "back" / "data.yaml"))
        assert found == [
            ("five.jpg", (0, 0, 1, 1)),
            ("five.jpg", (0, 4, 1, 1)),
            ("two.jpg", (1, 2, 1, 1)),
            ("two.jpg", (5, 7, 1, 1)),
        ]

    def test_without_lists_everything_is_the_training_split(self, convert: Any, tmp_path: Path) -> None:
        _voc(tmp_path / "VOCdevkit" / "VOC2007", "a", "<object><name>cat</name>" + _box(1, 1, 4, 5) + "</object>")
        result = convert(tmp_path / "VOCdevkit", "coco", "out")
        assert result["splits"] == {"train": {"images": 1, "left_out": {}}}
        (annotation,) = json.loads((tmp_path / "out" / "train.json").read_text())["annotations"]
        assert annotation["bbox"] == [0, 0, 4, 5] and annotation["area"] == 20

    def test_several_years_are_not_mixed(self, convert: Any, tmp_path: Path) -> None:
        for year in ("VOC2007", "VOC2012"):
            _voc(tmp_path / "d" / year, "a", "")
        with pytest.raises(DataError, match="several data sets in the form of VOC: VOC2007, VOC2012"):
            convert(tmp_path / "d", "coco", "out")

    @pytest.mark.parametrize(
        ("inside", "message"),
        [
            ("<object><name>cat</name></object>", "<object> has no <xmin>"),
            ("<object><name> </name></object>", "<object> has no <name>"),
            ("<object><name>cat</name><bndbox><xmin>a</xmin></bndbox></object>", "<xmin>: a is not a number"),
            ("<object><name>cat</name><bndbox><xmin>nan</xmin></bndbox></object>", "<xmin>: nan is not a number"),
            ("<object><name>cat</name><bndbox><xmin>9</xmin><ymin>1</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>",
             "bndbox: ends before it begins"),
            ("<object>", "not valid XML"),
        ],
    )  # fmt: skip
    def test_a_bad_file_is_named(self, inside: str, message: str, convert: Any, tmp_path: Path) -> None:
        _voc(tmp_path / "v", "a", inside)
        with pytest.raises(DataError) as caught:
            convert(tmp_path / "v", "coco", "out")
        assert str(caught.value).startswith(f"{tmp_path / 'v' / 'Annotations' / 'a.xml'}: {message}")

    def test_a_listed_file_that_is_missing(self, convert: Any, tmp_path: Path) -> None:
        _voc(tmp_path / "v", "a", "")
        _label(tmp_path / "v" / "ImageSets" / "Main" / "train.txt", "a\nb\n")
        with pytest.raises(DataError, match=r"b.xml: cannot be read \(No such file"):
            convert(tmp_path / "v", "coco", "out")


class TestOutput:
    def test_a_folder_that_holds_something_is_left_alone(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        _label(tmp_path / "out" / "mine.txt", "x")
        with pytest.raises(ConfigError, match="is there already and not empty"):
            convert(plain, "coco", "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]

    @pytest.mark.parametrize(("left_out", "message"), [("to", "to: not given"), ("output", "output: not given"),
                                                       ("data", "data: not given")])  # fmt: skip
    def test_what_is_needed_is_asked_for(self, left_out: str, message: str, plain: Path, tmp_path: Path) -> None:
        keys = {"data": str(plain), "to": "coco", "output": str(tmp_path / "out")}
        del keys[left_out]
        with pytest.raises(ConfigError, match=message):
            data_convert(keys, QUIET)

    @pytest.mark.parametrize("read_as", ["yolo", "voc"])
    def test_a_format_that_is_not_there(self, read_as: str, plain: Path, convert: Any) -> None:
        with pytest.raises(DataError, match=f"data={plain}: no .*as {read_as.upper()} has it"):
            convert(plain, "coco", "out", read_as=read_as)

    def test_images_of_one_name_are_kept_apart(self, plain: Path, convert: Any, tmp_path: Path, draw: Any) -> None:
        content = json.loads((plain / "train.json").read_text())
        for image, folder in zip(content["images"], ("a", "b", "c"), strict=True):
            image["file_name"] = f"{folder}/same.jpg"
        (plain / "train.json").write_text(json.dumps(content))
        result = convert(plain, "yolo", "out")
        found = sorted(path.stem for path in (tmp_path / "out" / "labels" / "train").iterdir())
        assert found == ["b_same", "c_same", "same"]
        assert result["splits"]["train"]["left_out"]["images whose files are missing"] == 3

    def test_an_rle_survives_between_json_formats(self, plain: Path, convert: Any, tmp_path: Path) -> None:
        convert(plain, "lvis", "out")
        written = json.loads((tmp_path / "out" / "train.json").read_text())["annotations"]
        (rle,) = [a["segmentation"] for a in written if isinstance(a["segmentation"], dict)]
        assert rle == {"size": [8, 6], "counts": "8d0d0"} and coco_mask.decode(rle).sum() == 20


def _label(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _describe(folder: Path, **content: Any) -> None:
    _label(folder / "data.yaml", yaml.safe_dump(content))


def _voc(folder: Path, stem: str, inside: str) -> None:
    size = "<size><width>10</width><height>8</height><depth>3</depth></size>"
    _label(folder / "Annotations" / f"{stem}.xml", f"<annotation>{size}{inside}</annotation>")


def _box(*ends: int) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    return "<bndbox>" + "".join(f"<{n}>{e}</{n}>" for n, e in zip(names, ends, strict=True)) + "</bndbox>"


def _signed_area(corners: np.ndarray) -> float:
    x, y = corners.T
    return float((np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
