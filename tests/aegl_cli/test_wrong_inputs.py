"""Wrong arguments, data and images: one line that names what is wrong, exit code 2, no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Words = tuple[str, ...]
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def own(val_images: list[Path], tmp_path: Path) -> Path:
    """A data set of the user's own: train.json, val.json and images, to be spoilt."""
    folder = tmp_path / "own"
    shutil.copytree(val_images[0].parents[2], folder)
    return folder


@pytest.fixture
def training(tiny: Words, own: Path, tmp_path: Path) -> Words:
    """Arguments that train on it."""
    return (
        "train",
        *(word for word in tiny if word != "data=shapes_lt"),
        f"data={own}",
        f"project={tmp_path / 'runs'}",
    )


def edit(file: Path, change: Edit) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def spoil(image: Path, how: str) -> None:
    if how == "truncated":
        image.write_bytes(image.read_bytes()[:300])
    elif how == "text":
        image.write_text("this is no image")
    else:
        image.unlink()


# Keys and values


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train", "data=shapes_lt", "modle=r50"], ["modle", "did you mean model"]),
        (["val", "wieghts=best.pt"], ["wieghts", "did you mean weights"]),
        (["predict", "sorce=x.jpg"], ["sorce", "did you mean source"]),
        (["export", "opst=20"], ["opst", "did you mean opset"]),
        (["train", "data=shapes_lt", "fraction=0.1"], ["fraction=0.1", "is no key of aegl train, but of data;"]),
        (["val", "--batch", "8"], ["batch=8", "is no key of aegl val, but of train, compare, tune;"]),
        (["benchmark", "output=x"], ["output=x", "is no key of aegl benchmark, but of export, data, plot, report;"]),
        (["data", "check", "data=shapes_lt", "stage.lr=2"], ["stage.lr=2", "is no key of aegl data"]),
        (["train", "data=shapes_lt", "lr=-1"], ["lr=-1", "> 0"]),
        (["train", "data=shapes_lt", "batch=many"], ["batch=many", "whole number"]),
        (["train", "data=shapes_lt", "sampler=rsf"], ["sampler=rsf", "random, rfs"]),
        (["train", "data=shapes_lt", "loss.mue=0.5"], ["loss.mue", "loss.mu"]),
        (["train", "data=shapes_lt", "method=seesaw_loss"], ["method=seesaw_loss", "fbs_aegl"]),
        (["train", "data=shapes"], ["data=shapes", "shapes_lt"]),
        (["train", "model=mini"], ["data: not given"]),
        (["predict", "weights=x.pt"], ["source: not given"]),
        (["train", "data=shapes_lt", "batch=6", "accumulate=4"], ["batch=6", "accumulate=4"]),
        (["train", "lr", "0.1"], ["lr", "key=value"]),
        (["cfg", "lr=1", "lr=2"], ["lr", "twice"]),
        (["train", "data=shapes_lt", "model=timm:nonsense"], ["nonsense", "timm"]),
        (["train", "cfg=nowhere.yaml"], ["cfg=nowhere.yaml", "no such file"]),
        (["val", "cfg=nowhere.yaml"], ["cfg=nowhere.yaml", "no such file"]),
    ],
)
def test_arguments(aegl: Any, refused: Any, tmp_path: Path, words: list[str], named: list[str]) -> None:
    refused(aegl(*words, f"project={tmp_path}"), *named)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["trian"], ["trian", "did you mean train"]),
        (["data"], ["check|stats|advise|download"]),
        (["data", "cheque", "data=shapes_lt"], ["data cheque", "check|stats|advise|download"]),
        (["methods", "seasaw"], ["seasaw", "fbs_aegl"]),
        (["models", "x=1"], ["x"]),
        (["checks", "x=1"], ["x"]),
    ],
)
def test_verbs(aegl: Any, refused: Any, words: list[str], named: list[str]) -> None:
    refused(aegl(*words), *named)


def test_several_mistakes_are_told_at_once(aegl: Any, refused: Any) -> None:
    refused(aegl("train", "lr=0", "batch=0", "modle=x"), "lr=0", "batch=0", "modle", lines=3)


@pytest.mark.parametrize("content", [b"a: [b", b"- a\n", b"\xff\xfe\x00", b"lr: -1", b"modle: r50"])
@pytest.mark.parametrize("verb", ["train", "val", "cfg"])
def test_a_file_of_keys(aegl: Any, refused: Any, best: Path, tmp_path: Path, content: bytes, verb: str) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(content)
    weights = [f"weights={best}"] if verb == "val" else []
    refused(aegl(verb, f"cfg={file}", *weights), file)


def test_a_device_that_is_not_here(
    aegl: Any, refused: Any, tiny: Words, best: Path, val_images: list[Path], tmp_path: Path
) -> None:
    project = f"project={tmp_path}"
    for words in (
        ("train", *tiny, project),
        ("val", f"weights={best}", project),
        ("predict", f"weights={best}", f"source={val_images[0]}", project),
    ):
        refused(aegl(*words, "device=cuda"), "device=cuda", "device=cpu")
        refused(aegl(*words, "device=gpu"), "device=gpu", "auto, cpu, cuda")
    assert not list(tmp_path.iterdir())


def test_a_file_where_the_project_should_be(
    aegl: Any, refused: Any, tiny: Words, best: Path, val_images: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for project in (file, file / "below"):
        refused(aegl("train", *tiny, f"project={project}"), f"project={project}")
        refused(aegl("val", f"weights={best}", f"project={project}"), f"project={project}")
        source = f"source={val_images[0]}"
        refused(aegl("predict", f"weights={best}", source, f"project={project}"), f"project={project}")


# Annotation files


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("train.json", lambda c: c["annotations"][0].update(category_id=99), ["category_id 99"]),
        ("val.json", lambda c: c["annotations"][0].update(category_id=99), ["category_id 99"]),
        ("train.json", lambda c: c["annotations"][0].update(image_id=-5), ["image_id -5"]),
        ("train.json", lambda c: c["annotations"][0].pop("bbox"), ["bbox"]),
        ("train.json", lambda c: c.pop("images"), ["images"]),
        ("val.json", lambda c: c["categories"].append({"id": 77, "name": "another"}), ["same categories"]),
    ],
)
def test_an_annotation_file_with_wrong_records(
    aegl: Any, refused: Any, training: Words, own: Path, tmp_path: Path, file: str, change: Edit, named: list[str]
) -> None:
    edit(own / file, change)
    refused(aegl(*training), *named, lines=2)  # the file, and below it the record
    assert not (tmp_path / "runs").exists()


def test_a_broken_annotation_file(aegl: Any, refused: Any, training: Words, own: Path) -> None:
    file = own / "train.json"
    file.write_bytes(file.read_bytes()[:-100])
    refused(aegl(*training), file, "JSON")
    refused(aegl("data", "check", f"data={own}"), file, "JSON")
    file.write_bytes(b"\xff\xd8\xff\xe0")
    refused(aegl(*training), file)


def test_missing_files(aegl: Any, refused: Any, training: Words, own: Path, tmp_path: Path) -> None:
    words = [word for word in training if not word.startswith("data=")]
    missing = tmp_path / "missing.json"
    refused(aegl(*words, f"data={missing}"), missing)
    refused(aegl(*words, "data=lvis_v1", f"data_dir={tmp_path}"), "aegl data download data=lvis_v1")
    (own / "val.json").unlink()
    refused(aegl(*training), "no val split")


# Images


@pytest.mark.parametrize("how", ["truncated", "text", "missing"])
def test_an_image_that_cannot_be_read(
    aegl: Any, refused: Any, training: Words, own: Path, best: Path, tmp_path: Path, how: str
) -> None:
    project = f"project={tmp_path / 'runs'}"
    for split in ("train", "val"):
        for image in (own / "images" / split).iterdir():
            spoil(image, how)
    refused(aegl(*training), own / "images" / "train", ".jpg")
    refused(aegl("val", f"weights={best}", f"data={own}", project, "workers=0"), own / "images" / "val", ".jpg")
    if how != "missing":
        image = next((own / "images" / "val").iterdir())
        for source in (image, image.parent):
            refused(aegl("predict", f"weights={best}", f"source={source}", project), image.parent, ".jpg")
        assert not list((tmp_path / "runs").glob("predict*"))


@pytest.mark.slow
def test_an_image_that_a_loading_process_cannot_read(start_aegl: Any, training: Words, own: Path) -> None:
    for image in (own / "images" / "train").iterdir():
        spoil(image, "truncated")
    process = start_aegl(*("workers=2" if word == "workers=0" else word for word in training))
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert f"aegl: error: image {own / 'images' / 'train'}" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_source_without_images(aegl: Any, refused: Any, best: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    for source in (tmp_path / "empty", tmp_path / "*.jpg", tmp_path / "nowhere"):
        refused(aegl("predict", f"weights={best}", f"source={source}"), f"source={source}")
