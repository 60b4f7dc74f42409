"""Values and mistakes: what is accepted, what is refused, and what the message says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegl.config import load_config, resolve
from aegl.config.fields import keys
from aegl.config.hints import did_you_mean
from aegl.errors import ConfigError


def message_of(overrides: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "value"),
    [
        ({"batch": "8"}, 8),
        ({"batch": "8.0"}, 8),
        ({"batch": np.int64(8)}, 8),
        ({"lr": "1e-3"}, 0.001),
        ({"lr": ".5"}, 0.5),
        ({"lr": np.float32(0.5)}, 0.5),
        ({"ema": "true"}, True),
        ({"ema": "1"}, True),
        ({"ema": "off"}, False),
        ({"train_imgsz": "96,112"}, [96, 112]),
        ({"train_imgsz": "[96, 112]"}, [96, 112]),
        ({"train_imgsz": "96"}, [96]),
        ({"train_imgsz": 96}, [96]),
        ({"train_imgsz": (96, 112)}, [96, 112]),
        ({"lr_milestones": "0.5, 1"}, [0.5, 1.0]),
        ({"lr_milestones": ""}, []),
        ({"name": "2024"}, "2024"),
        ({"name": 2024}, "2024"),
        ({"name": "true"}, "true"),
        ({"name": "null"}, None),
        ({"name": "a: b, [c"}, "a: b, [c"),
        ({"project": Path("some/where")}, "some/where"),
        ({"opset": "none"}, None),
        ({"conf": "~"}, None),
        ({"amp": "none"}, "none"),
    ],
)
def test_texts_become_what_the_key_holds(overrides: dict[str, Any], value: Any) -> None:
    (key,) = overrides
    found = getattr(load_config(overrides), key)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batch": "true"}, "batch=true: must be a whole number >= 1, or auto [arguments]"),
        ({"batch": True}, "batch=true: must be a whole number >= 1, or auto [arguments]"),
        ({"batch": "16.5"}, "batch=16.5: must be a whole number >= 1, or auto [arguments]"),
        ({"batch": "0"}, "batch=0: must be a whole number >= 1, or auto [arguments]"),
        ({"batch": None}, "batch=null: must be a whole number >= 1, or auto [arguments]"),
        ({"batch": object}, "batch=<class 'object'>: must be a whole number >= 1, or auto [arguments]"),
        ({"lr": "abc"}, "lr=abc: must be a number > 0 [arguments]"),
        ({"lr": "nan"}, "lr=nan: must be a number > 0 [arguments]"),
        ({"lr": "false"}, "lr=false: must be a number > 0 [arguments]"),
        ({"lr": [0.1]}, "lr=[0.1]: must be a number > 0 [arguments]"),
        ({"flip": "2"}, "flip=2: must be a number >= 0 and <= 1 [arguments]"),
        ({"conf": "2"}, "conf=2: must be a number >= 0 and <= 1, or null [arguments]"),
        ({"ema": "maybe"}, "ema=maybe: must be true or false [arguments]"),
        ({"ema": 2}, "ema=2: must be true or false [arguments]"),
        ({"ema": "2"}, "ema=2: must be true or false [arguments]"),
        ({"amp": "fp8"}, "amp=fp8: must be one of none, bf16, fp16 [arguments]"),
        ({"format": "tflite"}, "format=tflite: must be one of onnx, triton [arguments]"),
        ({"train_imgsz": "96,abc"}, "train_imgsz=[96, abc]: must be a list of 1 or more whole numbers [arguments]"),
        ({"train_imgsz": "true"}, "train_imgsz=true: must be a list of 1 or more whole numbers [arguments]"),
        ({"train_imgsz": "[]"}, "train_imgsz=[]: must be a list of 1 or more whole numbers [arguments]"),
        ({"train_imgsz": {"a": 1}}, "train_imgsz={a: 1}: must be a list of 1 or more whole numbers [arguments]"),
        ({"backbone.mean": "1,2,3,4"}, "backbone.mean=[1, 2, 3, 4]: must be a list of 1 to 3 numbers, or null"),
        ({"backbone.norm": "group"}, "backbone.norm=group: must be one of frozen, eval, batch, sync [arguments]"),
        ({"name": ["a"]}, "name=[a]: must be text, or null [arguments]"),
        ({"loss.mu": "-1"}, "loss.mu=-1: must be a number >= 0 [arguments]"),
        ({"loss.name": "nope"}, "loss.name=nope: unknown"),
        ({"method": "fbs"}, "method=fbs: unknown method (did you mean fbs_aegl"),
        ({"model": "r5"}, "model=r5: unknown model (did you mean r50?)"),
        ({"model": "timm:"}, "model=timm:: the name of a timm model is missing, e.g. model=timm:resnet26"),
        ({"recipe": "x"}, "recipe=x: unknown recipe; available: fbs_aegl/table1_baseline"),
        ({"data": "shapes"}, "data=shapes: unknown data set (did you mean shapes_lt?), and no file or folder"),
        ({"backbone": 5}, "backbone=5: is a group of keys; give them one by one, backbone.name, backbone.norm,"),
    ],
)
def test_unusable_values_are_named_with_what_is_allowed(overrides: dict[str, Any], message: str) -> None:
    assert message_of(overrides).startswith(message)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("modle", "did you mean model?"),
        ("loss.mue", "did you mean mu?"),
        ("mu", "did you mean loss.mu?"),
        ("nms_iou", "did you mean rpn.nms_iou or iou?"),
        ("rpn.nms_io", "did you mean rpn.nms_iou?"),
        ("rnp.nms_iou", "did you mean rpn.nms_iou?"),
        ("learning_rate", "unknown key [arguments]"),
        ("", "unknown key [arguments]"),
    ],
)
def test_unknown_keys_are_refused_with_near_ones(key: str, hint: str) -> None:
    text = message_of({key: "1"})
    assert text.startswith(f"{key}: unknown") and hint in text and len(text.splitlines()) == 1


@given(st.text(max_size=20), st.lists(st.text(max_size=12), max_size=6))
def test_hints_name_known_words_only(word: str, known: list[str]) -> None:
    hint = did_you_mean(word, known)
    names = hint.removeprefix(" (did you mean ").removesuffix("?)")
    assert not hint or names in known or names in {f"{a} or {b}" for a in known for b in known}


@given(st.sampled_from([name for name in keys() if len(name) > 4]), st.data())
def test_a_key_with_one_letter_left_out_is_found(name: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(name.rfind(".") + 2, len(name) - 1))
    misspelt = name[:place] + name[place + 1 :]
    if misspelt not in keys() and len(misspelt.rpartition(".")[2]) > 3:
        assert did_you_mean(misspelt, keys()) != ""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batch": 6, "accumulate": 4}, "batch=6, accumulate=4: batch must be a multiple of accumulate"),
        ({"imgsz": 2000}, "imgsz=2000, max_size=1333: the short side must not exceed the longest long side"),
        ({"train_imgsz": "96, 2000"}, "train_imgsz=[96, 2000]: every short side must lie in 32 .. max_size=1333"),
        ({"lr_milestones": "0.9, 0.5"}, "lr_milestones=[0.9, 0.5]: must be shares of training above 0 and up to 1"),
        ({"bands.names": "a, b"}, "bands.names=['a', 'b'], bands.edges=[10, 100]: one edge fewer than names"),
        ({"bands.edges": "100, 10"}, "bands.edges=[100, 10]: must rise from 0 or more"),
        ({"bands.names": "r, r, f"}, "bands.names=['r', 'r', 'f']: every band needs a name of its own"),
        ({"bands.low": 4}, "bands.low=4: there are only 3 bands"),
        ({"backbone.mean": "0.5, 0.5"}, "backbone.mean=[0.5, 0.5]: give one value for all channels, or three"),
        ({"backbone.std": "0"}, "backbone.std=[0.0]: must be above 0"),
        ({"neck.anchor_ratios": "-1, 1"}, "neck.anchor_ratios=[-1.0, 1.0]: must be above 0"),
        ({"rpn.negative_iou": 0.8}, "rpn.negative_iou=0.8, rpn.positive_iou=0.7: the negative one must not be"),
        ({"epochs": 1, "iterations": 1}, "epochs=1, iterations=1: two lengths of training; give one of them"),
    ],
)
def test_contradictions_between_keys_are_named(overrides: dict[str, Any], message: str) -> None:
    text = message_of(overrides)
    assert text.startswith(message) and text.endswith("[arguments]")


def test_a_contradiction_names_both_origins(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("max_size: 500\ntrain_imgsz: [400]\n")
    text = message_of({"cfg": str(file), "imgsz": 600})
    assert text == (
        f"imgsz=600, max_size=500: the short side must not exceed the longest long side [arguments, {file}]"
    )


def test_everything_wrong_comes_in_one_message(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("batch: true\nunheard: 1\nrpn: {nms_iou: 3}\n")
    overrides = {
        "cfg": str(file), "modle": 2, "method": "nope", "lr": -1, "loss.gamma": "x", "loss.mue": 3, "accumulate": 3,
        "bands.low": 9,
    }  # fmt: skip
    lines = message_of(overrides).splitlines()
    assert {line.partition(":")[0] for line in lines} == {
        "batch=true", "unheard", "rpn.nms_iou=3", "modle", "method=nope", "lr=-1", "loss.gamma=x", "loss.mue",
        "bands.low=9",
    }  # fmt: skip
    assert len(lines) == 9  # and nothing about batch and accumulate, as batch itself is wrong
    in_file = [line for line in lines if line.endswith(f"[{file}]")]
    assert {line.partition(":")[0] for line in in_file} == {"batch=true", "unheard", "rpn.nms_iou=3"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cfg={file}: no such file"),
        (b"a: [", "cfg={file}: no valid YAML"),
        (b"- 1", "cfg={file}: must hold `key: value` lines, it holds a list"),
        (b"just text", "cfg={file}: must hold `key: value` lines, it holds `just text`"),
        (b"\xff\xfe\x00", "cfg={file}: cannot be read (it is no text file)"),
        (b"cfg: other.yaml", "cfg=other.yaml: can be given as an argument only [{file}]"),
        (b"1: 2", "1: unknown key [{file}]"),
        (b"loss: [1]", "loss=[1]: is a group of keys; give them one by one, loss.name [{file}]"),
        (b"seed: 2024-01-01", "seed=2024-01-01: must be a whole number >= 0 [{file}]"),
    ],
)
def test_files_that_cannot_be_used_are_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    if content is not None:
        file.write_bytes(content)
    assert message_of({"cfg": str(file)}).startswith(message.format(file=file))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert message_of({"cfg": str(tmp_path)}) == f"cfg={tmp_path}: cannot be read (Is a directory)"


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("# nothing\n")
    assert load_config({"cfg": str(tmp_path / "my.yaml")}) == load_config({})


def test_every_value_has_an_origin() -> None:
    origins = resolve({"model": "mini", "loss.mu": 0.5}).origins
    assert origins["box.hidden"] == "cfg/model/mini.yaml" and origins["epochs"] == "cfg/schedule/mini.yaml"
    assert origins["loss.mu"] == "arguments" and origins["workers"] == "defaults"
    assert origins.keys() == {*keys(), "loss.mu"}
