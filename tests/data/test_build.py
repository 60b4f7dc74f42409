"""From an annotation file to a store: exactly what the file says, built once, and nothing left of a broken one."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from aegl.data import build
from aegl.data.build import build_store, cache_root
from aegl.data.store import AnnotationStore
from aegl.errors import AeglError, DataError, RunError
from aegl.progress import SilentProgress

Content = dict[str, Any]
StoreOf = Callable[..., AnnotationStore]


class TestColumns:
    def test_images(self, content: Content, store_of: StoreOf) -> None:
        store = store_of(content)
        assert len(store) == 3
        assert store.image_ids.tolist() == [5, 2, 9] and store.image_ids.dtype == np.int64
        assert store.image_sizes.tolist() == [[10, 20], [8, 6], [4, 4]]
        assert [store.image_name(i) for i in range(3)] == ["five.jpg", "two.jpg", "nine.jpg"]

    def test_annotations_lie_by_image_in_the_order_of_the_file(self, content: Content, store_of: StoreOf) -> None:
        store = store_of(content)
        assert store.ann_ids.tolist() == [103, 104, 101, 102]
        assert store.ann_offsets.tolist() == [0, 2, 4, 4] and store.ann_image.tolist() == [0, 0, 1, 1]
        assert store.annotations_of(1) == slice(2, 4)
        assert store.ann_boxes_xywh.tolist() == [[0, 0, 20, 10], [3, 4, 5, 6], [1.25, 2.5, 3, 4.125], [0, 0, 6, 8]]
        assert store.ann_boxes_xywh.dtype == np.float64
        assert store.ann_areas.tolist() == [150, 30, 7.75, 20]  # the second from its box
        assert store.ann_crowd.tolist() == [True, False, False, False]
        assert store.ann_ignore.tolist() == [False, True, False, False]

    def test_labels_go_by_category_id(self, content: Content, store_of: StoreOf) -> None:
        store = store_of(content)
        assert store.categories.ids.tolist() == [10, 20, 30] and store.categories.names == ("ant", "bee", "emu")
        assert store.ann_labels.tolist() == [0, 0, 0, 2]
        assert store.num_classes == 3

    def test_boxes_keep_every_bit(self, content: Content, store_of: StoreOf) -> None:
        box = [0.1, 1 / 3, 2.0000000000000004, 1e-300]
        content["annotations"][0]["bbox"] = box
        store = store_of(content)
        assert store.ann_boxes_xywh[2].tolist() == box

    def test_segmentations(self, content: Content, store_of: StoreOf) -> None:
        store = store_of(content)
        first, second = store.segmentation(2)
        assert first.tolist() == [[1.25, 2.5], [4.25, 2.5], [4.25, 6.625]]
        assert second.tolist() == [[1, 2], [3, 2], [3, 4], [1, 4]]
        assert store.segmentation(1) is None
        compressed = store.segmentation(3)
        assert compressed == {"size": [8, 6], "counts": b"8d0d0"}
        uncompressed = store.segmentation(0)
        assert uncompressed["size"] == [10, 20]
        runs = np.repeat([0, 1, 0], [30, 150, 20]).reshape(20, 10).T
        assert (coco_mask.decode([uncompressed])[..., 0] == runs).all()

    @pytest.mark.parametrize("segmentation", [None, []])
    def test_no_segmentation(self, segmentation: Any, content: Content, store_of: StoreOf) -> None:
        content["annotations"][0]["segmentation"] = segmentation
        assert store_of(content).segmentation(2) is None

    def test_federated_fields(self, content: Content, store_of: StoreOf) -> None:
        store = store_of(content)
        assert store.federated
        assert [store.neg_labels(i).tolist() for i in range(3)] == [[1, 2], [], []]
        assert [store.not_exhaustive_labels(i).tolist() for i in range(3)] == [[], [0], []]
        for image in content["images"]:
            image.pop("neg_category_ids", None)
        assert not store_of(content).federated

    def test_empty_tables(self, store_of: StoreOf) -> None:
        store = store_of({"images": [], "annotations": [], "categories": []})
        assert (len(store), store.num_annotations, store.num_classes, store.federated) == (0, 0, 0, False)

    def test_images_without_annotations(self, content: Content, store_of: StoreOf) -> None:
        store = store_of({**content, "annotations": []})
        assert store.ann_offsets.tolist() == [0, 0, 0, 0] and store.ann_boxes_xywh.shape == (0, 4)

    def test_the_hash_is_that_of_the_file(self, content: Content, store_of: StoreOf) -> None:
        store = store_of(content)
        assert store.content_hash == hashlib.sha256(store.source.read_bytes()).hexdigest()


class TestNames:
    @pytest.mark.parametrize(
        ("image", "name"),
        [
            ({"file_name": "a.jpg"}, "a.jpg"),
            ({"file_name": "sub/a.jpg"}, "sub/a.jpg"),
            ({"coco_url": "http://images.cocodataset.org/val2017/000000000001.jpg"}, "val2017/000000000001.jpg"),
            ({"file_name": "a.jpg", "coco_url": "http://x.org/train2017/a.jpg"}, "train2017/a.jpg"),
            ({"file_name": "a.jpg", "coco_url": "http://x.org/train2017/other.jpg"}, "a.jpg"),
            ({"file_name": "COCO_val2014_1.jpg", "coco_url": "http://x.org/val2017/1.jpg"}, "val2017/1.jpg"),
            (
                {"file_name": "COCO_val2014_1.jpg", "coco_url": "http://x.org/val2014/COCO_val2014_1.jpg"},
                "val2014/COCO_val2014_1.jpg",
            ),
            ({"file_name": "COCO_val2014_1.jpg"}, "COCO_val2014_1.jpg"),
            ({"file_name": None, "coco_url": None}, "000000000005.jpg"),
            ({"file_name": "größe 1.jpg"}, "größe 1.jpg"),
        ],
    )
    def test_where_an_image_lies(self, image: Content, name: str, content: Content, store_of: StoreOf) -> None:
        content["images"][0] = {"id": 5, "height": 10, "width": 20, **image}
        assert store_of(content).image_name(0) == name

    @pytest.mark.parametrize(
        "place",
        [
            "given/val2017/1.jpg",
            "given/1.jpg",
            "val2017/1.jpg",
            "1.jpg",
            "images/val2017/1.jpg",
            "images/1.jpg",
        ],
    )
    def test_where_it_is_looked_for(
        self, place: str, content: Content, store_of: StoreOf, tmp_path: Path, draw: Any
    ) -> None:
        content["images"][0] |= {"file_name": "COCO_val2014_1.jpg", "coco_url": "http://x.org/val2017/1.jpg"}
        path = draw(tmp_path / place, (20, 10))
        assert store_of(content, image_dirs=[tmp_path / "given"]).image_path(0) == path

    @pytest.mark.parametrize("on_disk", ["COCO_val2014_1.jpg", "1.jpg"])
    def test_a_prefix_of_lvis_may_be_on_disk_or_not(
        self, on_disk: str, content: Content, store_of: StoreOf, tmp_path: Path, draw: Any
    ) -> None:
        content["images"][0]["file_name"] = "COCO_val2014_1.jpg"
        path = draw(tmp_path / on_disk, (20, 10))
        assert store_of(content).image_path(0) == path

    def test_an_image_nowhere_is_named_with_where_it_was_looked_for(self, content: Content, store_of: StoreOf) -> None:
        store = store_of(content)
        with pytest.raises(DataError) as caught:
            store.image_path(1)
        message = str(caught.value)
        assert message.startswith(f"image 2 (two.jpg) of {store.source}: no such file; looked for ")
        assert str(store.source.parent / "images" / "two.jpg") in message


class TestOnce:
    def test_the_second_time_nothing_is_converted(
        self, content: Content, store_of: StoreOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = store_of(content)
        monkeypatch.setattr(build, "read_annotation_file", lambda path: pytest.fail("read again"))
        second = build_store(first.source, cache_dir=first.source.parent / "cache")
        assert second.ann_ids.tolist() == first.ann_ids.tolist()

    def test_a_changed_file_is_built_again(self, content: Content, store_of: StoreOf, write: Any) -> None:
        first = store_of(content)
        changed = first.source.stat().st_mtime_ns
        content["annotations"][0]["bbox"][0] = 2.25
        path = write(content)
        os.utime(path, ns=(changed, changed))  # the same size within one tick of the clock
        second = build_store(path, cache_dir=path.parent / "cache")
        assert (first.ann_boxes_xywh[2, 0], second.ann_boxes_xywh[2, 0]) == (1.25, 2.25)
        assert first.content_hash != second.content_hash

    def test_a_settled_file_is_hashed_once(
        self, content: Content, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(content)
        os.utime(path, (1e9, 1e9))
        build_store(path, cache_dir=tmp_path / "cache")
        monkeypatch.setattr(hashlib, "file_digest", lambda *given: pytest.fail("hashed again"))
        build_store(path, cache_dir=tmp_path / "cache")
        os.utime(path, (2e9, 1e9 + 1))
        with pytest.raises(pytest.fail.Exception):
            build_store(path, cache_dir=tmp_path / "cache")

    def test_other_folders_of_images_are_not_mixed_up(
        self, content: Content, store_of: StoreOf, tmp_path: Path
    ) -> None:
        assert store_of(content, image_dirs=[tmp_path / "a"]).image_dirs[0] == tmp_path / "a"
        assert store_of(content, image_dirs=[tmp_path / "b"]).image_dirs[0] == tmp_path / "b"

    def test_the_cache_is_where_the_environment_says(
        self, content: Content, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AEGL_CACHE", str(tmp_path / "elsewhere"))
        build_store(write(content))
        assert cache_root() == tmp_path / "elsewhere"
        assert len(list((tmp_path / "elsewhere" / "stores").glob("data-*/meta.json"))) == 1

    def test_a_half_written_folder_is_no_store(self, content: Content, store_of: StoreOf) -> None:
        (folder,) = _stores(store_of(content))
        (folder / "meta.json").unlink()
        (folder / "ann_ids.npy").write_bytes(b"half")
        with pytest.raises(DataError, match="not a complete annotation store"):
            AnnotationStore.open(folder)
        assert store_of(content).ann_ids.tolist() == [103, 104, 101, 102]

    def test_an_interruption_leaves_nothing(
        self, content: Content, store_of: StoreOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saved = []

        def interrupted(path: Path, column: Any) -> None:
            saved.append(path)
            if len(saved) == 5:
                raise KeyboardInterrupt

        monkeypatch.setattr(np, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store_of(content)
        assert not list((tmp_path / "cache").iterdir())

    def test_what_another_process_has_just_built_is_taken(
        self, content: Content, store_of: StoreOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        convert = build._convert

        def convert_while_another_is_quicker(*given: Any) -> Any:
            monkeypatch.setattr(build, "_convert", convert)
            store_of(content)
            return convert(*given)

        monkeypatch.setattr(build, "_convert", convert_while_another_is_quicker)
        assert store_of(content).ann_ids.tolist() == [103, 104, 101, 102]

    def test_reading_a_large_file_is_told(
        self, content: Content, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        told: list[tuple[str, int | None, str]] = []
        done: list[int] = []

        class Told(SilentProgress):
            def start(self, name: str, total: int | None, unit: str) -> None:
                told.append((name, total, unit))

            def update(self, n: int = 1, **fields: float | str) -> None:
                done.append(n)

        path = write(content)
        build_store(path, cache_dir=tmp_path / "silent", progress=Told())
        assert told == [] and done == []
        monkeypatch.setattr(build, "_WORTH_A_BAR", 0)
        monkeypatch.setattr(build, "_TELL_EVERY", 4)
        with caplog.at_level(logging.INFO, logger="aegl"):
            build_store(path, cache_dir=tmp_path / "cache", progress=Told())
        assert told == [("look through data.json", 0, "megabyte"), ("build the annotation store", 10, "record")]
        assert done[0] == 0 and done[1:] == [4, 4, 2]  # 3 categories, 3 images, 4 annotations
        assert f"reading {path}" in caplog.text

    def test_an_older_format_says_what_to_do(self, content: Content, store_of: StoreOf) -> None:
        (folder,) = _stores(store_of(content))
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps({**meta, "format_version": 0}))
        with pytest.raises(DataError, match="annotation store of format 0; delete it to rebuild"):
            AnnotationStore.open(folder)


class TestUnwritable:
    def test_a_cache_that_cannot_be_made(self, content: Content, write: Any, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        place = tmp_path / "file" / "cache"
        with pytest.raises(RunError) as caught:
            build_store(write(content), cache_dir=place)
        message = str(caught.value)
        assert message.startswith(f"{place}: the cache cannot be written (") and "set AEGL_CACHE" in message

    def test_a_full_disk(
        self, content: Content, store_of: StoreOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(path: Path, column: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "save", full)
        with pytest.raises(RunError, match=r"the cache cannot be written \(No space left on device\); set AEGL_CACHE"):
            store_of(content)
        assert not list((tmp_path / "cache").iterdir())


class TestBroken:
    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"nothing.json: no such annotation file"):
            build_store(tmp_path / "nothing.json")

    @pytest.mark.parametrize(
        ("table", "row", "changes", "message"),
        [
            ("annotations", 2, {"category_id": 7}, "annotation 102: category_id 7 is not among the categories"),
            ("annotations", 2, {"image_id": 7}, "annotation 102: image_id 7 is not among the images"),
            ("annotations", 2, {"id": 101}, "annotation id 101 occurs 2 times"),
            ("annotations", 2, {"bbox": [1, 2, float("nan"), 4]}, "annotation 102: bbox [1, 2, NaN, 4] is not x, y"),
            (
                "annotations",
                2,
                {"segmentation": {"size": [9, 6], "counts": "x"}},
                "annotation 102: its RLE is of [9, 6]",
            ),
            (
                "annotations",
                1,
                {"segmentation": {"size": [10, 20], "counts": [3]}},
                "annotation 103: its RLE is of 3 p",
            ),
            ("images", 1, {"height": 0}, "image 2: height 0 is not a whole number of pixels above 0"),
            ("images", 0, {"neg_category_ids": [20, 77]}, "image 5: neg_category_ids has [77], not among the"),
        ],
    )
    def test_file_and_record_are_named_and_no_store_is_left(
        self, table: str, row: int, changes: Content, message: str, content: Content, write: Any, tmp_path: Path
    ) -> None:
        content[table][row].update(changes)
        path = write(content)
        with pytest.raises(DataError) as caught:
            build_store(path, cache_dir=tmp_path / "cache")
        first, *lines = str(caught.value).splitlines()
        assert first.startswith(f"{path}: ") and any(line.strip().startswith(message) for line in lines)
        assert not list((tmp_path / "cache").glob("data*"))

    def test_a_file_cut_short(self, content: Content, write: Any, tmp_path: Path) -> None:
        path = write(content)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match=rf"{path}: not valid JSON \(line 1, column \d+: .*is the file cut short"):
            build_store(path, cache_dir=tmp_path / "cache")
        assert not list((tmp_path / "cache").glob("data*"))

    junk = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-2, 12)
        | st.just(10**400)
        | st.floats()
        | st.text(max_size=3)
        | st.just("\ud800"),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["size", "counts", "id"]), inner),
        max_leaves=8,
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_whatever_stands_anywhere_it_is_used_or_refused(
        self, data: st.DataObject, content: Content, tmp_path: Path
    ) -> None:
        changed = copy.deepcopy(content)
        table = data.draw(st.sampled_from(sorted(changed)))
        row = data.draw(st.integers(0, len(changed[table]) - 1))
        key = data.draw(st.sampled_from([None, *changed[table][row]]))
        value = data.draw(self.junk)
        if key is None:
            changed[table][row] = value
        else:
            changed[table][row][key] = value
        path = tmp_path / "junk.json"
        path.write_text(json.dumps(changed))
        try:
            store = build_store(path, cache_dir=tmp_path / "cache")
        except AeglError as error:
            assert str(error).startswith(f"{path}: ")
            return
        for a in range(store.num_annotations):
            segmentation = store.segmentation(a)
            if isinstance(segmentation, dict):
                coco_mask.decode([segmentation])
        assert np.isfinite(store.ann_boxes_xywh).all() and (store.ann_labels >= 0).all()
        assert all((store.neg_labels(i) >= 0).all() for i in range(len(store)))


def _stores(store: AnnotationStore) -> list[Path]:
    return [path.parent for path in (store.source.parent / "cache").glob("data-*/meta.json")]
