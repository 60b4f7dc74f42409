"""The files that come with aegl, the rendered defaults, and a saved configuration read back."""

from __future__ import annotations

import string
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aegl.config import Config, complete_parts, load_config, shipped, to_yaml
from aegl.config.fields import keys
from aegl.config.render import grouped_keys, render_defaults
from aegl.data.description import parse_description

SHIPPED = [(kind, name) for kind in shipped.KINDS for name in shipped.available(kind)]


def test_default_yaml_is_what_the_schema_renders() -> None:
    text = (resources.files("aegl.cfg") / "default.yaml").read_text(encoding="utf-8")
    assert text == render_defaults(), "run `python -m aegl.config.render > cfg/default.yaml`"


def test_the_rendered_defaults_are_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text(render_defaults())
    assert load_config({"cfg": str(tmp_path / "default.yaml")}) == Config()


def test_every_key_has_help_and_stands_in_one_group() -> None:
    assert [name for _, names in grouped_keys() for name in names] == list(keys())
    assert all(key.help.endswith(".") for key in keys().values())
    assert all(title for title, _ in grouped_keys())


def test_there_are_files_of_every_kind_that_is_documented() -> None:
    assert {kind for kind, _ in SHIPPED} >= {"data", "model", "method", "schedule"}
    assert "shapes_lt" in shipped.available("data") and "fbs_aegl" in shipped.available("method")


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_every_shipped_file_loads(kind: str, name: str) -> None:
    config = load_config({kind: name})
    assert getattr(config, kind) == name
    complete_parts(config)


@pytest.mark.parametrize("name", shipped.available("data"))
def test_every_shipped_data_file_is_a_description(name: str) -> None:
    description = parse_description(shipped.read("data", name), name)
    assert description.generator or set(description.files) == {"train", "val"}
    folders = {archive.to for archive in description.download}
    assert description.generator or folders, "nothing to fetch"


@pytest.mark.parametrize("name", shipped.available("model"))
def test_every_model_names_its_schedule(name: str) -> None:
    schedule = shipped.settings("model", name)["schedule"]
    config = load_config({"model": name})
    assert config.schedule == schedule
    for key, value in shipped.settings("schedule", schedule).items():
        assert getattr(config, key) == value, key


def test_a_timm_model_is_taken_by_its_name() -> None:
    config = load_config({"model": "timm:resnet26"})
    assert (config.model, config.backbone.name) == ("timm:resnet26", "resnet26")


@pytest.mark.parametrize("method", shipped.available("method"))
@pytest.mark.parametrize("model", shipped.available("model"))
def test_args_yaml_gives_the_same_configuration_back(model: str, method: str, saved: Any) -> None:
    config = load_config({"model": model, "method": method})
    assert load_config({"cfg": saved(config)}) == config
    complete = complete_parts(config)
    assert load_config({"cfg": saved(complete)}) == complete


texts = st.text(max_size=12).filter(lambda text: text.strip().lower() not in ("", "null", "~", "none"))
overrides = st.fixed_dictionaries(
    {},
    optional={
        "name": texts,
        "source": st.text(string.printable, min_size=1).filter(
            lambda t: t.strip().lower() not in ("null", "~", "none")
        ),
        "project": st.text(max_size=12),
        "lr": st.floats(1e-12, 1e12),
        "weight_decay": st.floats(0, 1e3),
        "seed": st.integers(0, 2**63),
        "iterations": st.integers(1, 10**9),
        "ema": st.booleans(),
        "conf": st.none() | st.floats(0, 1),
        "train_imgsz": st.lists(st.integers(32, 1333), min_size=1, max_size=5),
        "bands.names": st.lists(st.text(max_size=4), min_size=3, max_size=3, unique=True),
        "backbone.mean": st.none() | st.lists(st.floats(-1, 1), min_size=3, max_size=3),
        "loss.mu": st.floats(0, 2),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(overrides)
def test_any_configuration_survives_its_file(saved: Any, overrides: dict[str, Any]) -> None:
    config = load_config(overrides)
    assert load_config({"cfg": saved(config)}) == config


def test_args_yaml_has_lists_on_one_line_and_every_key() -> None:
    content = to_yaml(load_config({"train_imgsz": "96, 112"}))
    assert "train_imgsz: [96, 112]" in content.splitlines()
    flat = {
        f"{name}.{part}" if isinstance(value, dict) else name
        for name, value in yaml.safe_load(content).items()
        for part in (value if isinstance(value, dict) else [""])
    }
    assert flat == set(keys())
