"""`--json`: standard output is one JSON object, for every verb, and the figures of `val` have their place in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

FIGURES = {"AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR"}


def only_object(text: str) -> dict[str, Any]:
    """The JSON object that the text is; anything before or after it is an error."""
    assert text.endswith("}\n") and text.count("\n") == 1, text
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(content, dict)
    return content


def check_summary(content: dict[str, Any]) -> None:
    assert (content["protocol"], content["split"], content["bands"]) == ("lvis", "val", ["r", "c", "f"])
    for kind in ("box", "mask"):
        assert content[kind].keys() >= FIGURES
        assert all(value is None or 0 <= value <= 1 for value in content[kind].values())
    assert content["mask"]["AP"] is not None
    assert content["mask"]["APl"] is None  # the data has no large objects: no figure, rather than a wrong one


@pytest.mark.slow
def test_train_val_and_export_print_one_object_whatever_libraries_say(
    start_aegl: Any, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    """In processes of their own: what compiled code writes past Python would show up too."""
    project = f"project={tmp_path}"

    def run(*words: str) -> dict[str, Any]:
        process = start_aegl(*words, "--json")
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "Traceback" not in err
        return only_object(out)

    train = run("train", *tiny, project, "name=x")
    check_summary(train["metrics"])
    assert (train["run"], train["iterations"]) == (str(tmp_path / "x"), 6)
    assert Path(train["best"]).is_file() and Path(train["last"]).is_file()
    assert train["fitness"] == train["metrics"]["mask"]["AP"]
    val = run("val", project)
    check_summary(val)
    assert val["weights"] == train["best"]
    assert {kind: val[kind] for kind in ("box", "mask")} == {kind: train["metrics"][kind] for kind in ("box", "mask")}
    export = run("export", project)
    assert Path(export["file"]) == Path(train["best"]).with_suffix(".onnx")
    assert export["parity"]["passed"] is True
    assert Path(export["report"]).is_file()


def test_what_other_packages_print_goes_elsewhere(aegl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(*_: object) -> dict[str, int]:
        sys.stdout.write("loading...\n")
        return {"answer": 1}

    monkeypatch.setattr("aegl.tasks.train", noisy)
    result = aegl("train", "--json")
    assert only_object(result.stdout) == {"answer": 1}
    assert result.stderr == "loading...\n"


def test_predict(aegl: Any, best: Path, val_images: list[Path], tmp_path: Path) -> None:
    words = (f"weights={best}", f"source={val_images[0]}", "conf=0.001", "max_det=3", f"project={tmp_path}")
    content = only_object(aegl("predict", *words, "--json").stdout)
    (image,) = content["images"]
    assert (image["path"], len(image["detections"])) == (str(val_images[0]), 3)
    assert image["detections"][0].keys() >= {"category_id", "name", "band", "score", "box", "mask"}
    assert json.loads(Path(content["run"], "predictions.json").read_text()) == content["images"]


def test_data(aegl: Any, tiny_data: tuple[str, ...]) -> None:
    check = only_object(aegl("data", "check", *tiny_data, "--json").stdout)
    assert check["ok"] is True
    assert check["splits"]["train"]["classes"] == 6
    stats = only_object(aegl("data", "stats", *tiny_data, "--json").stdout)
    assert stats["train"]["instances_per_class"]["max"] == 12
    assert sum(band["classes"] for band in stats["val"]["bands"].values()) == 6


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["cfg"], {"config", "text"}),
        (["cfg", "model=mini"], {"config", "text"}),
        (["models"], {"models"}),
        (["methods"], {"methods"}),
        (["methods", "fbs_aegl"], {"name", "bundle", "options"}),
        (["checks"], {"aegl", "python", "packages"}),
    ],
)
def test_verbs_that_tell(aegl: Any, words: list[str], keys: set[str]) -> None:
    result = aegl(*words, "--json")
    assert result.exit_code == 0, result.stderr
    assert only_object(result.stdout).keys() >= keys


@pytest.mark.parametrize(
    "words",
    [
        ["train", "modle=r50"],
        ["val", "weights=nowhere.pt"],
        ["predict"],
        ["export", "weights=nowhere.pt"],
        ["data", "check"],
        ["cfg", "lr=-1"],
        ["models", "x=1"],
        ["methods", "nonsense"],
        ["checks", "x=1"],
    ],
)
def test_an_error_is_an_object_too(aegl: Any, words: list[str]) -> None:
    result = aegl(*words, "--json")
    content = only_object(result.stdout)
    assert content["exit_code"] == result.exit_code == 2
    assert content["error"] in result.stderr
