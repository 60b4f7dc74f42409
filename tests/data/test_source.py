"""What ``data=`` may be, which files that means, and where their images are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aegl.config import load_config
from aegl.config.sections import BandsSection, ShapesSection
from aegl.data.bands import Bands
from aegl.data.source import DataSource, describe_shipped, resolve_data
from aegl.errors import ConfigError, DataError, RunError

Content = dict[str, Any]
Write = Callable[..., Path]


def resolve(data: Any, **given: Any) -> DataSource:
    given = {"data_dir": Path("datasets"), "shapes": ShapesSection(), "bands": BandsSection()} | given
    return resolve_data(str(data), **given)


@pytest.fixture
def describe(tmp_path: Path, content: Content, write: Write) -> Callable[..., Path]:
    """Writes a data YAML over one annotation file, ``all.json``."""
    write(content, "all.json")

    def write_yaml(**keys: Any) -> Path:
        path = tmp_path / "my.yaml"
        path.write_text(yaml.safe_dump(keys))
        return path

    return write_yaml


class TestShipped:
    def test_a_name_means_files_below_data_dir(self, tmp_path: Path) -> None:
        source = resolve("lvis_v1", data_dir=tmp_path)
        assert source.files == {
            "train": tmp_path / "lvis_v1" / "lvis_v1_train.json",
            "val": tmp_path / "lvis_v1" / "lvis_v1_val.json",
        }
        assert source.image_dirs == (tmp_path / "lvis_v1" / "../coco",)
        assert (source.name, source.protocol) == ("lvis_v1", "lvis")

    def test_missing_files_say_how_to_get_them(self, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            resolve("coco", data_dir=tmp_path).open("val")
        file = tmp_path / "coco/annotations/instances_val2017.json"
        assert str(caught.value) == (
            f"data=coco: {file}: no such annotation file; fetch it with `aegl data download data=coco`, or give "
            "data_dir=<folder that holds coco>"
        )

    def test_what_cannot_be_fetched_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"coco_lt_train.json: no such .*\. coco_lt_train.json has no official"):
            resolve("coco_lt", data_dir=tmp_path).open("train")

    def test_shapes_lt_is_made_in_the_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AEGL_CACHE", str(tmp_path / "cache"))
        shapes = ShapesSection(classes=4, max_instances=4, imbalance=2, val_per_class=1, imgsz=32)
        source = resolve("shapes_lt", shapes=shapes)
        assert source.open("train").num_classes == 4 and source.protocol == "lvis"
        assert source.open("val").image_path(0).is_relative_to(tmp_path / "cache")

    def test_shapes_lt_in_a_cache_that_cannot_be_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("AEGL_CACHE", str(tmp_path / "file"))
        with pytest.raises(RunError, match=r"the cache cannot be written \(.*set AEGL_CACHE to another folder"):
            resolve("shapes_lt")

    def test_describing_another_name_lists_the_names(self) -> None:
        assert describe_shipped("coco")["path"] == "coco"
        with pytest.raises(DataError, match=r"data=my.yaml: not a data set that comes with aegl; those are coco, coco"):
            describe_shipped("my.yaml")


class TestYaml:
    def test_every_key(self, tmp_path: Path, content: Content, write: Write) -> None:
        write(content, "sub/a/t.json")
        write(content, "sub/a/v.json")
        (tmp_path / "my.yaml").write_text(
            yaml.safe_dump(
                {
                    "description": "for people", "path": "sub", "train": "a/t.json", "val": "a/v.json",
                    "images": ["pictures", "/abs"], "names": ["x", "y", "z"], "protocol": "coco",
                    "bands": {"low": 1}, "config": {"max_det": 7},
                }
            )
        )  # fmt: skip
        config = load_config({"data": str(tmp_path / "my.yaml")})
        source = resolve(tmp_path / "my.yaml", bands=config.bands)
        root = tmp_path / "sub"
        assert source.files == {"train": root / "a/t.json", "val": root / "a/v.json"}
        assert source.image_dirs == (root / "pictures", Path("/abs"))
        assert (source.name, source.protocol, config.max_det) == ("my", "coco", 7)
        assert source.open("val").categories.names == ("x", "y", "z")
        assert source.bands == Bands(low=1)

    def test_paths_go_from_the_yaml_not_from_here(
        self, describe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        describe(train="all.json")
        monkeypatch.chdir(tmp_path.parent)
        assert len(resolve(Path(tmp_path.name) / "my.yaml").open("train")) == 3

    def test_without_a_protocol_the_evaluation_file_tells(self, describe: Any, content: Content, write: Write) -> None:
        assert resolve(describe(val="all.json")).protocol == "lvis"
        for image in content["images"]:
            image.pop("neg_category_ids", None)
        write(content, "plain.json")
        assert resolve(describe(train="all.json", val="plain.json")).protocol == "coco"
        assert resolve(describe(train="all.json", val="plain.json", protocol="lvis")).protocol == "lvis"

    def test_names_by_label_in_any_order(self, describe: Any) -> None:
        source = resolve(describe(train="all.json", names={2: "z", 0: "x", 1: 7}))
        assert source.open("train").categories.names == ("x", "7", "z")

    def test_a_renamed_store_goes_to_workers_with_its_names(self, describe: Any) -> None:
        import pickle

        store = resolve(describe(train="all.json", names=["x", "y", "z"])).open("train")
        assert pickle.loads(pickle.dumps(store)).categories.names == ("x", "y", "z")

    def test_one_split_is_enough_and_the_other_is_missed_by_name(self, describe: Any) -> None:
        with pytest.raises(DataError, match="data=my: has no train split; it has val"):
            resolve(describe(val="all.json")).open("train")

    def test_a_split_is_opened_once(self, describe: Any) -> None:
        source = resolve(describe(val="all.json"))
        assert source.open("val") is source.open("val")

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            (
                {"train": "all.json", "trian": 1},
                r"my.yaml: trian: unknown key \(did you mean train\?\); known are path,",
            ),
            ({"train": "all.json", "protocol": "voc"}, r"my.yaml: protocol=voc: must be lvis or coco"),
            ({"train": ["a.json"]}, r"my.yaml: train=\[a.json\]: must be one annotation file"),
            ({"train": "all.json", "images": {"a": 1}}, r"images=\{a: 1\}: must be a folder or a list of folders"),
            ({"train": "all.json", "names": "x"}, r"names=x: must be a list of class names, or names by label"),
            (
                {"train": "all.json", "names": ["x", False]},
                r"names=\[x, false\]: must be .*quote words that YAML takes",
            ),
            ({"train": "all.json", "bands": 5}, r"bands=5: must be a group of keys"),
            ({"train": "all.json", "path": [1]}, r"path=\[1\]: must be a folder"),
            ({"path": "."}, r"my.yaml: must name annotation files with `train:` and `val:`, and their folder with `pa"),
            ({}, r"my.yaml: must name annotation files"),
        ],
    )
    def test_mistakes(self, keys: dict[str, Any], message: str, describe: Any) -> None:
        with pytest.raises(DataError, match=message):
            resolve(describe(**keys))

    def test_all_mistakes_at_once(self, describe: Any) -> None:
        with pytest.raises(DataError) as caught:
            resolve(describe(train=1.5, trian=1, protocol="voc", images=7, names=[None]))
        assert [line.split(": ")[1].partition("=")[0] for line in str(caught.value).splitlines()] == [
            "names", "protocol", "trian",
        ]  # fmt: skip

    def test_a_wrong_number_of_names(self, describe: Any, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            resolve(describe(train="all.json", names=["x", "y"])).open("train")
        assert str(caught.value) == f"data=my: names lists 2 classes, {tmp_path / 'all.json'} has 3"

    def test_a_missing_annotation_file(self, describe: Any, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            resolve(describe(train="gone.json")).open("train")
        assert str(caught.value) == f"data=my: {tmp_path / 'gone.json'}: no such annotation file"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"a: [", "no valid YAML"),
            (b"- a", "must hold `key: value` lines, it holds a list"),
            (b"\xff\xfe\x00", "cannot be read"),
            (None, "no such file"),
        ],
    )
    def test_what_is_no_yaml(self, text: bytes | None, message: str, tmp_path: Path) -> None:
        if text is not None:
            (tmp_path / "my.yaml").write_bytes(text)
        with pytest.raises(ConfigError, match=rf"data=.*my.yaml: {message}"):
            resolve(tmp_path / "my.yaml")


class TestFolder:
    @pytest.mark.parametrize(
        "names",
        [
            ("train.json", "val.json"),
            ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
            ("annotations/train.json", "annotations/val.json"),
            ("lvis_v1_train.json", "lvis_v1_val.json"),
            ("my_train_set.json", "my_val_set.json"),
        ],
    )
    def test_files_are_found_by_their_names(self, names: tuple[str, str], tmp_path: Path, write: Write) -> None:
        others = ("annotations/captions_train2017.json", "annotations/image_info_val2017.json", "labels.json")
        for name in (*names, *others):
            write({}, name)
        assert resolve(tmp_path).files == {"train": tmp_path / names[0], "val": tmp_path / names[1]}

    def test_instances_go_before_other_tasks_of_coco(self, tmp_path: Path, write: Write) -> None:
        for name in ("instances_val2017.json", "person_keypoints_val2017.json"):
            write({}, f"annotations/{name}")
        source = resolve(tmp_path)
        assert source.files == {"val": tmp_path / "annotations/instances_val2017.json"}

    def test_plain_names_go_before_all_others(self, tmp_path: Path, write: Write) -> None:
        for name in ("train.json", "train_old.json", "annotations/instances_train2017.json"):
            write({}, name)
        assert resolve(tmp_path).files == {"train": tmp_path / "train.json"}

    def test_several_candidates(self, tmp_path: Path, write: Write) -> None:
        for name in ("instances_train2014.json", "instances_train2017.json"):
            write({}, f"annotations/{name}")
        with pytest.raises(DataError) as caught:
            resolve(tmp_path)
        assert str(caught.value) == (
            f"data={tmp_path}: several files may be the train split: annotations/instances_train2014.json, "
            "annotations/instances_train2017.json; name one in a data YAML"
        )

    def test_no_candidate(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=rf"data={tmp_path}: no annotations found; looked for COCO's"):
            resolve(tmp_path)

    def test_here_has_a_name(self, tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        write({}, "train.json")
        monkeypatch.chdir(tmp_path)
        assert resolve(".").name == tmp_path.name


class TestJson:
    def test_one_file_is_both_splits(self, write: Write) -> None:
        path = write({}, "all.json")
        source = resolve(path)
        assert source.files == {"train": path, "val": path} and source.name == "all"

    def test_a_training_file_finds_its_sibling(self, write: Write) -> None:
        train, val = write({}, "instances_train2017.json"), write({}, "instances_val2017.json")
        assert resolve(train).files == {"train": train, "val": val}
        assert resolve(val).files == {"train": val, "val": val}

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=rf"data={tmp_path}/all.json: no such annotation file"):
            resolve(tmp_path / "all.json")


@pytest.mark.parametrize("data", ["some/where", "all.txt", "/no/such/folder/"])
def test_nothing_of_that_name(data: str) -> None:
    with pytest.raises(DataError, match=f"data={data}: neither a shipped data set nor a YAML, a folder or a JSON"):
        resolve(data)


class TestImages:
    """Where the image ``five.jpg`` may lie, below the folder of the data set."""

    @pytest.mark.parametrize("place", ["pictures/five.jpg", "five.jpg", "images/five.jpg"])
    def test_of_a_yaml_with_images(self, place: str, describe: Any, tmp_path: Path, draw: Any) -> None:
        path = draw(tmp_path / place, (20, 10))
        assert resolve(describe(train="all.json", images="pictures")).open("train").image_path(0) == path

    @pytest.mark.parametrize("place", ["five.jpg", "images/five.jpg", "ann/five.jpg", "ann/images/five.jpg"])
    def test_of_a_yaml_without(self, place: str, describe: Any, content: Content, write: Write, draw: Any) -> None:
        folder = write(content, "ann/t.json").parent.parent
        path = draw(folder / place, (20, 10))
        assert resolve(describe(train="ann/t.json")).open("train").image_path(0) == path

    @pytest.mark.parametrize("place", ["five.jpg", "images/five.jpg", "annotations/images/five.jpg"])
    @pytest.mark.parametrize("data", [".", "annotations/instances_train.json"])
    def test_of_cocos_folders(
        self, place: str, data: str, tmp_path: Path, content: Content, write: Write, draw: Any
    ) -> None:
        write(content, "annotations/instances_train.json")
        path = draw(tmp_path / place, (20, 10))
        assert resolve(tmp_path / data).open("train").image_path(0) == path

    @pytest.mark.parametrize("place", ["five.jpg", "images/five.jpg"])
    def test_of_a_json(self, place: str, tmp_path: Path, content: Content, write: Write, draw: Any) -> None:
        path = draw(tmp_path / place, (20, 10))
        assert resolve(write(content)).open("train").image_path(0) == path

    @pytest.mark.parametrize("where", ["link", "real"])
    def test_of_a_link_to_a_json(self, where: str, tmp_path: Path, content: Content, write: Write, draw: Any) -> None:
        (tmp_path / "link").mkdir()
        (tmp_path / "link" / "t.json").symlink_to(write(content, "real/t.json"))
        path = draw(tmp_path / where / "images" / "five.jpg", (20, 10))
        assert resolve(tmp_path / "link" / "t.json").open("train").image_path(0) == path

    def test_of_lvis_go_by_coco_url(self, tmp_path: Path, content: Content, write: Write, draw: Any) -> None:
        for image, split in zip(content["images"], ("train2017", "val2017", "val2017"), strict=True):
            del image["file_name"]
            image["coco_url"] = f"http://images.cocodataset.org/{split}/{image['id']:012d}.jpg"
        write(content, "lvis_v1/lvis_v1_train.json")
        paths = [
            draw(tmp_path / "coco" / split / f"{key:012d}.jpg", (20, 10))
            for split in ("train2017", "val2017")
            for key in (5, 2)
        ]
        store = resolve("lvis_v1", data_dir=tmp_path).open("train")
        assert [store.image_path(i).resolve() for i in range(2)] == [paths[0], paths[3]]
