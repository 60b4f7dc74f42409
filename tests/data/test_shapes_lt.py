"""The embedded data set: exact counts, kin, real masks, the same bytes every time."""

import hashlib
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from aegl.data.shapes_draw import OUTLINES
from aegl.data.shapes_layout import arrange, assign_counts, band_edges, long_tail_counts, shape_classes
from aegl.data.shapes_lt import generate
from aegl.errors import ConfigError, DataError

SMALL = {"classes": 8, "max_instances": 24, "imbalance": 24.0, "val_per_class": 3, "imgsz": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("shapes"), **SMALL)


@pytest.fixture(scope="module")
def splits(folder):
    return {split: json.loads((folder / f"{split}.json").read_text()) for split in ("train", "val")}


def digest(folder) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    content = b"".join(str(p.relative_to(folder)).encode() + p.read_bytes() for p in files)
    return hashlib.sha256(content).hexdigest()


def mask_of(segmentation, side: int) -> np.ndarray:
    if isinstance(segmentation, dict):
        return mask_utils.decode({**segmentation, "counts": segmentation["counts"].encode()}).astype(bool)
    return mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(segmentation, side, side))).astype(bool)


def test_every_class_has_exactly_its_count(splits) -> None:
    train = Counter(a["category_id"] for a in splits["train"]["annotations"])
    assert sorted(train.values()) == sorted(long_tail_counts(8, 24, 24.0).tolist())
    assert Counter(a["category_id"] for a in splits["val"]["annotations"]) == dict.fromkeys(range(1, 9), 3)
    for category in splits["train"]["categories"]:
        assert category["instance_count"] == train[category["id"]]


def test_frequency_follows_the_image_counts(splits) -> None:
    rare, common = band_edges(24, 24.0)
    images = Counter(c for _, c in {(a["image_id"], a["category_id"]) for a in splits["train"]["annotations"]})
    for category in splits["train"]["categories"]:
        count = images[category["id"]]
        assert category["image_count"] == count
        assert category["frequency"] == ("r" if count <= rare else "c" if count <= common else "f")
    assert {c["frequency"] for c in splits["train"]["categories"]} == {"r", "c", "f"}
    assert splits["val"]["categories"] == splits["train"]["categories"]


def test_images_are_exhaustive_and_on_disk(folder, splits) -> None:
    ids = [i["id"] for s in splits.values() for i in s["images"]]
    assert len(ids) == len(set(ids))
    for split in splits.values():
        present = {i["id"]: set() for i in split["images"]}
        for a in split["annotations"]:
            present[a["image_id"]].add(a["category_id"])
        for image in split["images"]:
            assert set(image["neg_category_ids"]) | present[image["id"]] == set(range(1, 9))
            assert not set(image["neg_category_ids"]) & present[image["id"]]
            assert present[image["id"]]
            assert image["not_exhaustive_category_ids"] == []
            with Image.open(folder / "images" / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"]) == (64, 64)


def test_masks_fit_boxes_and_do_not_overlap(splits) -> None:
    for split in splits.values():
        taken = {i["id"]: np.zeros((64, 64), dtype=int) for i in split["images"]}
        for a in split["annotations"]:
            mask = mask_of(a["segmentation"], 64)
            taken[a["image_id"]] += mask
            x, y, w, h = a["bbox"]
            rows, columns = np.nonzero(mask)
            assert a["area"] == mask.sum() > 0
            assert abs(columns.min() - x) <= 1.5 and abs(columns.max() + 1 - x - w) <= 1.5
            assert abs(rows.min() - y) <= 1.5 and abs(rows.max() + 1 - y - h) <= 1.5
            assert x >= 0 and y >= 0 and x + w <= 64 and y + h <= 64
        assert max(t.max() for t in taken.values()) == 1


def test_both_kinds_of_mask_occur(splits) -> None:
    kinds = Counter(type(a["segmentation"]) for s in splits.values() for a in s["annotations"])
    assert kinds[list] > kinds[dict] > 0


def test_pictures_show_what_the_annotations_say(folder, splits) -> None:
    """Inside its mask an object is as red, green, ... as its name says."""
    names = {c["id"]: c["name"].split("_")[0] for c in splits["val"]["categories"]}
    files = {i["id"]: folder / "images" / i["file_name"] for i in splits["val"]["images"]}
    hues = {"red": 0, "yellow": 38, "green": 92, "blue": 153, "purple": 209}  # of 256
    for a in splits["val"]["annotations"]:
        with Image.open(files[a["image_id"]]) as picture:
            hue, saturation, _ = np.moveaxis(np.asarray(picture.convert("HSV")).astype(int), -1, 0)
        mask = mask_of(a["segmentation"], 64)
        away = np.abs((hue[mask] - hues[names[a["category_id"]]] + 128) % 256 - 128)
        assert np.median(away) < 14
        assert np.median(saturation[mask]) > 90


def test_same_seed_same_bytes_other_seed_other_bytes(folder, tmp_path) -> None:
    assert digest(generate(tmp_path, **SMALL)) == digest(folder)
    other = generate(tmp_path, **SMALL, seed=1)
    assert other.name != folder.name and digest(other) != digest(folder)


def test_a_finished_folder_is_used_again(folder) -> None:
    calls = []
    before = (folder / "train.json").stat().st_mtime_ns
    assert generate(folder.parent, **SMALL, progress=lambda done, total: calls.append(done)) == folder
    assert not calls and (folder / "train.json").stat().st_mtime_ns == before


def test_progress_reaches_the_total_and_nothing_else_is_left(tmp_path) -> None:
    calls = []
    made = generate(tmp_path, **{**SMALL, "max_instances": 4}, progress=lambda *c: calls.append(c))
    assert [done for done, _ in calls] == list(range(1, calls[0][1] + 1))
    assert list(tmp_path.iterdir()) == [made]


def test_two_at_once(tmp_path) -> None:
    small = {**SMALL, "max_instances": 4}
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: generate(tmp_path, **small), range(2)))
    assert made[0] == made[1]
    assert list(tmp_path.iterdir()) == [made[0]]


def test_a_damaged_folder_is_named(tmp_path) -> None:
    made = generate(tmp_path, **{**SMALL, "max_instances": 4})
    (made / "val.json").unlink()
    with pytest.raises(DataError, match=r"lacks val\.json"):
        generate(tmp_path, **{**SMALL, "max_instances": 4})


@pytest.mark.parametrize("classes", [3, 101])
def test_too_few_or_too_many_classes(classes: int, tmp_path) -> None:
    with pytest.raises(ConfigError, match=f"classes={classes}"):
        generate(tmp_path, classes=classes)


@pytest.mark.parametrize("count", [4, 5, 8, 30, 99, 100])
def test_classes_are_distinct_and_have_kin(count: int) -> None:
    classes = shape_classes(count)
    assert len({c.name for c in classes}) == count
    assert all(any(a.is_kin(b) for b in classes) for a in classes)
    assert len({c.shape for c in classes}) >= 2


def test_default_size_is_the_long_tail_it_claims() -> None:
    counts = long_tail_counts(100, 800, 800.0)
    assert band_edges(800, 800.0) == (5, 40)
    assert counts[0] == 800 and counts[-1] == 1 and (np.diff(counts) <= 0).all()
    classes = shape_classes(100)
    drawn = assign_counts(classes, counts, (5, 40), np.random.default_rng(0))
    rare, frequent = np.flatnonzero(drawn <= 5), np.flatnonzero(drawn > 40)
    with_kin = [any(classes[r].is_kin(classes[f]) for f in frequent) for r in rare]
    assert len(rare) >= 20 and np.mean(with_kin) >= 0.95


def test_layout_loses_nothing_and_keeps_objects_apart() -> None:
    counts = np.array([200, 1, 30, 1, 3])
    scenes = arrange(counts, np.random.default_rng(0))
    assert np.bincount([p.label for s in scenes for p in s]).tolist() == counts.tolist()
    assert 3 < counts.sum() / len(scenes) < 4.5
    for scene in scenes:
        for k, a in enumerate(scene):
            assert 0.13 <= a.radius <= 0.24
            assert a.radius <= min(a.x, a.y) and max(a.x, a.y) <= 1 - a.radius
            for b in scene[:k]:
                assert np.hypot(a.x - b.x, a.y - b.y) > 0.85 * (a.radius + b.radius)


def test_outlines_are_simple_figures_in_the_unit_circle() -> None:
    assert len(OUTLINES) == 10
    for outline in OUTLINES.values():
        assert np.linalg.norm(outline, axis=1).max() == pytest.approx(1.0)
        x, y = outline.T
        area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
        assert 0.4 < area < np.pi
