"""Wrong weights, results files and runs to resume: one line that names what is wrong, exit code 2, no traceback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Words = tuple[str, ...]

# Weights


@pytest.fixture
def alien(best: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Files that are no checkpoint of aegl, by kind."""

    def make(kind: str) -> Path:
        path = tmp_path / "alien.pt"
        if kind == "text":
            path.write_text("not weights")
        elif kind == "empty":
            path.write_bytes(b"")
        elif kind == "truncated":
            path.write_bytes(best.read_bytes()[:50_000])
        elif kind == "tensors":
            torch.save({"conv.weight": torch.zeros(2)}, path)
        elif kind == "module":
            torch.save(torch.nn.Linear(2, 2), path)
        elif kind == "folder":
            path.mkdir()
        return path

    return make


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "tensors", "module", "folder", "missing"])
def test_a_checkpoint_that_is_none(
    aegl: Any,
    refused: Any,
    alien: Callable[[str], Path],
    tiny: Words,
    val_images: list[Path],
    tmp_path: Path,
    kind: str,
) -> None:
    weights = f"weights={alien(kind)}"
    project = f"project={tmp_path / 'runs'}"
    source = f"source={val_images[0]}"
    for words in (("val",), ("export",), ("predict", source), ("train", *tiny)):
        refused(aegl(*words, weights, project), tmp_path / "alien.pt")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", [b"not a model", b""])
def test_an_onnx_file_that_is_none(aegl: Any, refused: Any, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "best.onnx"
    file.write_bytes(content)
    refused(aegl("val", f"weights={file}"), file)
    refused(aegl("export", f"weights={file}"), file)


def test_no_run_to_take_weights_from(aegl: Any, refused: Any, tmp_path: Path) -> None:
    for verb in ("val", "export"):
        refused(aegl(verb, f"project={tmp_path}"), f"project={tmp_path}", "weights=")


def test_data_of_other_classes_than_the_weights(aegl: Any, refused: Any, best: Path, tmp_path: Path) -> None:
    other = [f"weights={best}", "data=shapes_lt", "shapes.classes=7", f"project={tmp_path}"]
    refused(aegl("val", *other), "6 classes", "7")
    assert not list(tmp_path.iterdir())


def test_pretrained_weights_that_cannot_be_had(
    aegl: Any, refused: Any, tiny: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without a network and with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    words = ["model=r18" if word == "model=mini" else word for word in tiny]
    result = aegl("train", *words, f"project={tmp_path / 'runs'}")
    refused(result, "resnet18", "backbone_weights=", "pretrained=false")
    assert not (tmp_path / "runs").exists()


# Results files


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[{", ["JSON"]),
        ("{}", ["list"]),
        ("[1]", ["record 0"]),
        ("[{}]", ["record 0", "image_id"]),
        ('[{"image_id": 5}]', ["record 0", "image_id 5"]),
        ('[{"image_id": 1000001, "category_id": 77}]', ["record 0", "category_id 77"]),
        ('[{"image_id": 1000001, "category_id": 1}]', ["record 0", "score"]),
        ('[{"image_id": 1000001, "category_id": 1, "score": "high", "bbox": [1, 2, 3, 4]}]', ["record 0", "score"]),
        ('[{"image_id": 1000001, "category_id": 1, "score": NaN, "bbox": [1, 2, 3, 4]}]', ["record 0", "score"]),
        ('[{"image_id": 1000001, "category_id": 1, "score": 0.5}]', ["record 0", "bbox"]),
        ('[{"image_id": 1000001, "category_id": 1, "score": 0.5, "bbox": [1, 2]}]', ["record 0", "bbox"]),
        (
            '[{"image_id": 1000001, "category_id": 1, "score": 0.5, "segmentation": {"size": [1, 1], "counts": "1"}}]',
            ["record 0"],
        ),
    ],
)
def test_a_results_file_with_wrong_records(
    aegl: Any, refused: Any, tiny_data: Words, tmp_path: Path, content: str, named: list[str]
) -> None:
    file = tmp_path / "results.json"
    file.write_text(content)
    refused(aegl("val", *tiny_data, f"predictions={file}", f"project={tmp_path / 'runs'}"), file, *named)
    assert not (tmp_path / "runs").exists()


def test_a_missing_results_file(aegl: Any, refused: Any, tiny_data: Words, tmp_path: Path) -> None:
    file = tmp_path / "nowhere.json"
    refused(aegl("val", *tiny_data, f"predictions={file}", f"project={tmp_path}"), file)
    refused(aegl("val", f"predictions={file}", f"project={tmp_path}"), "data: not given")


# Resuming


def test_a_run_that_cannot_be_resumed(aegl: Any, refused: Any, trained: Path, tmp_path: Path) -> None:
    refused(aegl("train", "resume=true", "name=never", f"project={tmp_path}"), tmp_path / "never", "args.yaml")
    refused(aegl("train", "resume=true", f"project={tmp_path}"), f"project={tmp_path}", "last.pt")
    refused(aegl("train", "resume=true", f"weights={tmp_path / 'last.pt'}"), f"weights={tmp_path / 'last.pt'}")
    finished = aegl("train", "resume=true", "name=first", f"project={trained.parent}")
    refused(finished, trained, "6 steps are done", f"weights={trained / 'weights' / 'best.pt'}")
    copy = tmp_path / "early"
    copy.mkdir()
    shutil.copy(trained / "args.yaml", copy)
    refused(aegl("train", "resume=true", "name=early", f"project={tmp_path}"), copy, "exist_ok=true")


def test_resuming_with_other_settings(aegl: Any, refused: Any, trained: Path, tiny: Words) -> None:
    resume = ("train", "resume=true", f"project={trained.parent}", "name=first")
    refused(aegl(*resume, "iterations=60", "lr=0.5"), "iterations=60", "started with 6", "lr=0.5", lines=3)
    refused(aegl(*resume, *tiny), "all its 6 steps are done")  # the run's own settings may be repeated
