"""The doctor: every problem is found, counted and named with its record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aegl.config.sections import BandsSection, ShapesSection
from aegl.data.check import SHOWN, check_source
from aegl.data.source import resolve_data
from aegl.errors import DataError
from aegl.progress import SilentProgress

Content = dict[str, Any]
Report = dict[str, Any]


@pytest.fixture
def clean(content: Content, tmp_path: Path, draw: Any) -> Content:
    """A file with nothing wrong, and its images."""
    content["annotations"][3]["segmentation"] = [[3, 4, 8, 4, 8, 10]]
    content["categories"][1]["image_count"] = 2
    for image in content["images"]:
        draw(tmp_path / image["file_name"], (image["width"], image["height"]))
    return content


@pytest.fixture
def check(write: Callable[..., Path], tmp_path: Path) -> Callable[..., Report]:
    """Checks contents as the splits of a folder."""

    def check_folder(**splits: Content) -> Report:
        for split, content in splits.items():
            write(content, f"{split}.json")
        source = resolve_data(str(tmp_path), data_dir=tmp_path, shapes=ShapesSection(), bands=BandsSection())
        return check_source(source, progress=SilentProgress())

    return check_folder


def only(report: Report, split: str = "train") -> dict[str, Any]:
    """The one problem of a split, without its kind's count."""
    found = report["splits"][split]
    assert found["num_problems"] == 1 and list(found["by_kind"].values()) == [1], found["problems"]
    (problem,) = found["problems"]
    assert [problem["kind"]] == list(found["by_kind"])
    assert report["ok"] == (problem["severity"] == "warning")
    return dict(problem)


def test_nothing_wrong(clean: Content, check: Any, tmp_path: Path) -> None:
    assert check(train=clean) == {
        "data": tmp_path.name,
        "ok": True,
        "splits": {
            "train": {
                "images": 3,
                "annotations": 4,
                "classes": 3,
                "bands": {"r": 1, "c": 1, "f": 1},
                "num_problems": 0,
                "by_kind": {},
                "problems": [],
            }
        },
    }


class TestRecords:
    """What keeps a file from being used: found without a store."""

    @pytest.mark.parametrize(
        ("changes", "kind", "message"),
        [
            ({"id": 104}, "double id", "annotation id 104 occurs 2 times"),
            ({"image_id": 77}, "unknown image", "annotation 101: image_id 77 is not among the images"),
            ({"segmentation": [[1, 2, 3]]}, "broken polygon", "annotation 101: a polygon has 3 numbers"),
            ({"segmentation": {"size": [8, 6], "counts": "x"}}, "broken RLE", "annotation 101: its RLE cannot be dec"),
            (
                {"segmentation": {"size": [1, 6], "counts": [6]}},
                "wrong RLE size",
                "annotation 101: its RLE is of [1, 6]",
            ),
        ],
    )
    def test_they_are_errors(self, changes: Content, kind: str, message: str, clean: Content, check: Any) -> None:
        clean["annotations"][0].update(changes)
        report = check(train=clean)
        found = report["splits"]["train"]
        assert not report["ok"] and found["by_kind"] == {kind: 1, "not checked": 1}
        first, rest = found["problems"]
        assert (first["severity"], first["id"]) == ("error", changes.get("id", 101))
        assert first["message"].startswith(message)
        assert rest["severity"] == "warning" and "mend the records first" in rest["message"]

    def test_a_category_without_id_breaks_nothing_else(self, clean: Content, check: Any) -> None:
        clean["categories"].append({"id": ["x"]})
        report = check(train=clean, val=clean)
        assert report["splits"]["train"]["by_kind"] == {"bad id": 1, "not checked": 1}

    def test_no_json_is_told_at_once(self, clean: Content, check: Any, tmp_path: Path) -> None:
        (tmp_path / "val.json").write_text("{")
        with pytest.raises(DataError, match=r"val.json: not valid JSON"):
            check(train=clean)

    def test_a_missing_file_is_told_with_its_remedy(self, tmp_path: Path) -> None:
        source = resolve_data("coco", data_dir=tmp_path, shapes=ShapesSection(), bands=BandsSection())
        with pytest.raises(DataError, match=r"instances_train2017.json: no such annotation file; fetch it with"):
            check_source(source, progress=SilentProgress())


class TestAnnotations:
    @pytest.mark.parametrize(
        ("box", "shown"),
        [
            ([1, 2, 6.5, 4], "[1.0, 2.0, 6.5, 4.0]"),
            ([1, 2, 3, 7.5], "[1.0, 2.0, 3.0, 7.5]"),
            ([-1.5, 2, 3, 4], "[-1.5, 2.0, 3.0, 4.0]"),
            ([1, -2, 3, 4], "[1.0, -2.0, 3.0, 4.0]"),
        ],
    )
    def test_a_box_outside(self, box: list[float], shown: str, clean: Content, check: Any) -> None:
        clean["annotations"][0]["bbox"] = box
        problem = only(check(train=clean))
        assert (problem["severity"], problem["kind"], problem["id"]) == ("warning", "box outside", 101)
        assert problem["message"] == f"annotation 101: box {shown} reaches outside its image, 6 wide, 8 high"

    def test_a_pixel_outside_is_rounding(self, clean: Content, check: Any) -> None:
        clean["annotations"][0]["bbox"] = [-1, -1, 8, 10]
        assert check(train=clean)["splits"]["train"]["num_problems"] == 0

    @pytest.mark.parametrize("box", [[1, 2, 0, 4], [1, 2, 3, 0]])
    def test_a_degenerate_box(self, box: list[float], clean: Content, check: Any) -> None:
        clean["annotations"][0]["bbox"] = box
        problem = only(check(train=clean))
        assert (problem["severity"], problem["kind"], problem["id"]) == ("warning", "degenerate box", 101)

    @pytest.mark.parametrize(("polygon", "corners"), [([], 0), ([1, 2], 1), ([1, 2, 3, 4], 2)])
    def test_a_polygon_without_area(self, polygon: list[float], corners: int, clean: Content, check: Any) -> None:
        clean["annotations"][0]["segmentation"].append(polygon)
        problem = only(check(train=clean))
        assert (problem["severity"], problem["kind"], problem["id"]) == ("warning", "broken polygon", 101)
        assert problem["message"] == f"annotation 101: a polygon of {corners} corners has no area"

    def test_no_mask(self, clean: Content, check: Any) -> None:
        del clean["annotations"][0]["segmentation"]
        problem = only(check(train=clean))
        assert (problem["severity"], problem["kind"], problem["id"]) == ("warning", "no mask", 101)

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("image_count", "category 10 (ant): image_count is 9, the file has 2"),
            ("instance_count", "category 10 (ant): instance_count is 9, the file has 3"),
        ],
    )
    def test_a_wrong_count_in_training(self, key: str, message: str, clean: Content, check: Any) -> None:
        wrong = {**clean, "categories": [{**c, **({key: 9} if c["id"] == 10 else {})} for c in clean["categories"]]}
        problem = only(check(train=wrong))
        assert (problem["severity"], problem["kind"], problem["id"]) == ("warning", "wrong count", 10)
        assert problem["message"] == message

    def test_counts_say_nothing_of_val(self, clean: Content, check: Any) -> None:
        report = check(train=clean, val={**clean, "annotations": []})
        assert report["splits"]["val"]["num_problems"] == 0


class TestImages:
    def test_missing_ones_are_counted_by_folder(self, clean: Content, check: Any, tmp_path: Path) -> None:
        clean["images"][0]["file_name"] = "a/x.jpg"
        clean["images"][1]["file_name"] = "b/y.jpg"
        clean["images"][2]["file_name"] = "b/z.jpg"
        report = check(train=clean)
        assert not report["ok"] and report["splits"]["train"]["by_kind"] == {"missing images": 2}
        first, second = report["splits"]["train"]["problems"]
        assert (first["severity"], first["id"], second["id"]) == ("error", 5, 2)
        assert first["message"].startswith(
            f"1 of 3 images are missing, looked for first in {tmp_path / 'a'}: x.jpg (image 5);"
        )
        assert second["message"].startswith(
            f"2 of 3 images are missing, looked for first in {tmp_path / 'b'}: y.jpg (image 2) and others; fetch them"
        )

    def test_one_of_another_size(self, clean: Content, check: Any, tmp_path: Path, draw: Any) -> None:
        path = draw(tmp_path / "two.jpg", (8, 6))
        problem = only(check(train=clean))
        assert (problem["severity"], problem["kind"], problem["id"]) == ("error", "wrong image size", 2)
        assert problem["message"] == f"image 2: {path} is 8x6, the annotations say 6x8"

    @pytest.mark.parametrize("name", ["two.jpg", "two.png"])
    @pytest.mark.parametrize("damage", ["cut short", "no image", "empty"])
    def test_one_that_cannot_be_read(
        self, name: str, damage: str, clean: Content, check: Any, tmp_path: Path, draw: Any
    ) -> None:
        clean["images"][1] |= {"file_name": name, "width": 60, "height": 80}
        path = draw(tmp_path / name, (60, 80))
        data = path.read_bytes()
        path.write_bytes({"cut short": data[: len(data) // 2], "no image": b"<html>", "empty": b""}[damage])
        clean["annotations"] = [a for a in clean["annotations"] if a["image_id"] != 2]
        for category in clean["categories"]:
            del category["image_count"], category["instance_count"]
        problem = only(check(train=clean))
        assert (problem["severity"], problem["kind"], problem["id"]) == ("error", "unreadable image", 2)
        assert problem["message"].startswith(f"image 2: {path} cannot be read (")


class Steps(SilentProgress):
    """Steps done and to be done, by name."""

    def __init__(self) -> None:
        self.done: dict[str, tuple[int, int | None]] = {}

    def start(self, name: str, total: int | None, unit: str) -> None:
        self.done[name] = (0, total)

    def update(self, n: int = 1, **fields: float | str) -> None:
        name, (steps, total) = list(self.done.items())[-1]
        self.done[name] = (steps + n, total)


class TestSplits:
    def test_different_categories(self, clean: Content, check: Any) -> None:
        val = {**clean, "categories": [*clean["categories"][:2], {"id": 40, "name": "x"}, {"id": 50, "name": "y"}]}
        val["images"] = [{**image, "neg_category_ids": []} for image in clean["images"]]
        problem = only(check(train=clean, val=val), "val")
        assert (problem["severity"], problem["kind"]) == ("error", "different categories")
        assert problem["message"].startswith(
            "its 4 category ids are not the 3 of train: 1 are missing and 2 are new; both files must list the same"
        )

    def test_one_file_for_both_is_checked_once(self, clean: Content, write: Any, tmp_path: Path) -> None:
        clean["categories"][0]["image_count"] = 77  # may be of another file
        path = write(clean, "all.json")
        (tmp_path / "two.jpg").unlink()
        source = resolve_data(str(path), data_dir=tmp_path, shapes=ShapesSection(), bands=BandsSection())
        progress = Steps()
        report = check_source(source, progress=progress)
        assert progress.done == {"check train images": (3, 3)}
        assert report["splits"]["train"] == report["splits"]["val"]
        assert report["splits"]["val"]["by_kind"] == {"missing images": 1}

    def test_every_image_is_a_step(self, clean: Content, write: Any, tmp_path: Path) -> None:
        write(clean, "train.json")
        write(clean, "val.json")
        source = resolve_data(str(tmp_path), data_dir=tmp_path, shapes=ShapesSection(), bands=BandsSection())
        progress = Steps()
        check_source(source, progress=progress)
        assert progress.done == {"check train images": (3, 3), "check val images": (3, 3)}


def _many(content: Content, count: int) -> Iterator[Content]:
    for k in range(count):
        yield {**content["annotations"][3], "id": 1000 + k, "bbox": [3, 4, 0, 6]}


def test_many_of_a_kind_hide_no_other(clean: Content, check: Any, tmp_path: Path) -> None:
    clean["annotations"] += list(_many(clean, 3 * SHOWN))
    for category in clean["categories"]:
        del category["image_count"], category["instance_count"]
    (tmp_path / "two.jpg").unlink()
    report = check(train=clean)
    found = report["splits"]["train"]
    assert not report["ok"]
    assert found["by_kind"] == {"missing images": 1, "degenerate box": 3 * SHOWN}
    assert found["num_problems"] == 3 * SHOWN + 1
    assert [p["kind"] for p in found["problems"]] == ["missing images", *["degenerate box"] * SHOWN]
