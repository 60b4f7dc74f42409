"""What `methods=`, `recipes=` and `entries=` mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegl.comparison.entries import Entry, entries_of
from aegl.config import load_config
from aegl.errors import ConfigError


def parsed(**keys: Any) -> list[Entry]:
    return entries_of(load_config(keys), {})


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("seesaw", {"method": "seesaw"}),
        ("seesaw+sampler=rfs", {"method": "seesaw", "sampler": "rfs"}),
        ("a+loss.mu=0.1+lr=1e+3", {"method": "a", "loss.mu": "0.1", "lr": "1e+3"}),
        ("a+weights=x=1+2.pt", {"method": "a", "weights": "x=1+2.pt"}),
    ],
)
def test_keys_of_an_entry_follow_its_name(text: str, keys: dict[str, str]) -> None:
    (entry,) = parsed(methods=[text])
    assert (entry.name, entry.keys) == (text, keys)


@given(st.dictionaries(st.sampled_from(["lr", "loss.mu", "bands.low"]), st.text("0123456789.e+-", min_size=1)))
def test_any_number_survives_in_an_entry(keys: dict[str, str]) -> None:
    (entry,) = parsed(methods=["+".join(["a", *(f"{key}={value}" for key, value in keys.items())])])
    assert entry.keys == {"method": "a", **keys}


def test_commas_divide_entries_of_methods_and_recipes() -> None:
    found = parsed(methods="a,a+sampler=rfs", recipes="fbs_aegl/x,y")
    assert [entry.name for entry in found] == ["a", "a+sampler=rfs", "fbs_aegl/x", "y"]
    assert found[2].keys == {"recipe": "fbs_aegl/x"}


def test_a_file_names_entries_and_may_hold_lists_and_sections(tmp_path: Path) -> None:
    file = tmp_path / "entries.yaml"
    file.write_text(
        "- {name: ours, method: fbs_aegl, keys: {train_imgsz: [96, 112], loss: {mu: 0.1}}}\n"
        "- {recipe: fbs_aegl/table5_r50_gol}\n- {recipe: r, method: m}\n- {name: plain}\n"
    )
    ours, recipe, both, plain = parsed(entries=str(file))
    assert ours == Entry("ours", {"method": "fbs_aegl", "train_imgsz": [96, 112], "loss": {"mu": 0.1}})
    assert recipe == Entry("fbs_aegl/table5_r50_gol", {"recipe": "fbs_aegl/table5_r50_gol"})
    assert both == Entry("r m", {"recipe": "r", "method": "m"})
    assert plain == Entry("plain", {})


@pytest.mark.parametrize("name", ["fbs_aegl/table5_r50_gol", "a b+weights=../x.pt", "..", "a:b*?"])
def test_a_folder_is_one_plain_name(name: str) -> None:
    folder = Entry(name, {}).folder
    assert not folder.startswith(".") and not set(folder) & set("/\\ :*?")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, ["methods", "recipes", "entries", "runs"]),
        ({"methods": "a,a"}, ["a", "twice"]),
        ({"recipes": "x/y,x_y"}, ["x/y", "x_y", "too like"]),
        ({"methods": "sampler=rfs"}, ["methods", "sampler=rfs", "name of a method"]),
        ({"methods": "a+seed=3"}, ["a+seed=3", "seed", "whole comparison"]),
        ({"methods": "a+name=x"}, ["name", "whole comparison"]),
        ({"methods": "a+runs=x"}, ["runs", "whole comparison"]),
        ({"methods": f"a+weights={'x' * 200}"}, ["too long", "entries=file.yaml"]),
        ({"entries": "nowhere.yaml"}, ["entries=nowhere.yaml", "no such file"]),
    ],
)
def test_wrong_entries_are_one_message(keys: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parsed(**keys)
    assert [word for word in words if word not in str(error.value)] == []
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1", ["must hold a list"]),
        ("- a", ["entry 1", "`a`"]),
        ("- {method: a}\n- {method: b, sampler: rfs}", ["entry 2", "sampler: unknown", "name, method, recipe, keys"]),
        ("- {method: a, keys: [1]}", ["entry 1", "`keys`"]),
        ("- {keys: {lr: 1}}", ["entry 1", "neither a name nor a method"]),
        ("- {method: a, keys: {project: x}}", ["entry 1", "project"]),
        ("- {method: a", ["no valid YAML"]),
    ],
)
def test_a_wrong_file_is_named_with_the_entry(tmp_path: Path, content: str, words: list[str]) -> None:
    file = tmp_path / "entries.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as error:
        parsed(entries=str(file))
    assert [word for word in (f"entries={file}", *words) if word not in str(error.value)] == []


@pytest.mark.parametrize("kind", ["method", "recipe"])
def test_the_kind_that_entries_name_cannot_be_given_for_all(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"{kind}=x: {kind}s=a,b names them"):
        entries_of(load_config({f"{kind}s": "a,b"}), {kind: "x"})
