"""The command line as a user meets it: quick help, one clear line per mistake, JSON and nothing else on request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aegl_cli.main import cli


def aegl(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["val", "-h"], ["cfg", "--help"]])
def test_help_does_not_import_torch(words: list[str]) -> None:
    code = (
        "import sys; from aegl_cli.main import cli\n"
        f"try: cli({words!r})\nexcept SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "aegl" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "data=shapes_lt", "modle=r50"], ["modle", "model"]),
        (["train", "data=shapes_lt", "lr=-1"], ["lr", "-1"]),
        (["train", "data=shapes_lt", "loss.mue=0.5"], ["loss.mue", "loss.mu"]),
        (["train", "data=shapes_lt", "model=r51"], ["r51", "r50"]),
        (["train", "data=nowhere.json"], ["nowhere.json"]),
        (["train", "data=shapes_lt", "lr=0", "batch=0"], ["lr", "batch"]),
        (["train"], ["data"]),
        (["val", "weights=none.pt"], ["none.pt"]),
        (["val", "weights=none.onnx"], ["none.onnx"]),
        (["predict", "source=nowhere.jpg", "weights=x.pt"], ["nowhere.jpg"]),
        (["data", "cheque", "data=shapes_lt"], ["cheque", "check"]),
        (["methods", "seasaw"], ["seasaw"]),
        (["trian"], ["trian", "train"]),
        (["train", "foo"], ["foo", "key=value"]),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(words: list[str], expected: list[str]) -> None:
    result = aegl(*words)
    assert result.exit_code == 2, result.output
    assert all(word in result.stderr for word in expected), result.stderr
    assert "Traceback" not in result.output


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_text("not weights")
    result = aegl("val", f"weights={path}", "data=shapes_lt")
    assert result.exit_code == 2
    assert str(path) in result.stderr


def test_json_is_alone_on_standard_output() -> None:
    result = aegl("models", "--json")
    assert result.exit_code == 0
    assert {"r50", "swin_t", "mobilenetv2"} <= {model["name"] for model in json.loads(result.stdout)["models"]}


def test_json_reports_errors_too() -> None:
    result = aegl("train", "modle=r50", "--json")
    assert json.loads(result.stdout)["exit_code"] == result.exit_code == 2


def test_cfg_resolves_layers() -> None:
    result = aegl("cfg", "--model", "swin_t", "method=softmax_ce", "lr=0.5", "--json")
    config = json.loads(result.stdout)["config"]
    assert (config["optimizer"], config["lr"], config["loss"]["name"]) == ("adamw", 0.5, "softmax_ce")


def test_methods_explains_one() -> None:
    result = aegl("methods", "fbs_aegl")
    assert result.exit_code == 0
    assert "loss.mu" in result.stdout
    assert "27.8" in result.stdout
