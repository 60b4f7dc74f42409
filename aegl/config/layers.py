"""The layers a configuration is made of: shipped YAML files, the user's file, the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from aegl.config.hints import did_you_mean
from aegl.errors import ConfigError

KINDS = ("data", "model", "method", "schedule", "recipe")
"""Folders of `aegl.cfg`, in the order of their layers, weakest first."""
NOT_CONFIG = {"reference", "description"}
"""Blocks of shipped files that are for people, not for the configuration."""
TIMM_PREFIX = "timm:"


@dataclass(frozen=True)
class Layer:
    """Values of one origin.

    Args:
        origin: where they come from, in words for messages.
        values: nested values by key.
    """

    origin: str
    values: Mapping[str, Any]


def available(kind: str) -> list[str]:
    """Names of the shipped files of a kind, e.g. ``fbs_aegl/table5_r101_gol`` for a recipe."""
    root = resources.files("aegl.cfg") / kind
    with resources.as_file(root) as folder:
        return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def read_shipped(kind: str, name: str) -> dict[str, Any]:
    """Content of a shipped file. Raises :class:`ConfigError` with near names for an unknown one."""
    names = available(kind)
    if name not in names:
        raise ConfigError(f"{kind}={name}: unknown{did_you_mean(name, names)}; known are {', '.join(names)}")
    text = (resources.files("aegl.cfg") / kind / f"{name}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text) or {}
    return content


def shipped_layer(kind: str, name: str) -> Layer:
    """The configuration part of a shipped file."""
    if kind == "model" and name.startswith(TIMM_PREFIX):
        return Layer(f"model={name}", {"schedule": "2x", "backbone": {"name": name.removeprefix(TIMM_PREFIX)}})
    content = read_shipped(kind, name)
    values = content.get("config", {}) if kind == "data" else {k: v for k, v in content.items() if k not in NOT_CONFIG}
    return Layer(f"cfg/{kind}/{name}.yaml", values)


def data_layer(data: str) -> Layer:
    """What a data set brings along: the ``config`` block of a shipped or the user's own YAML."""
    if data in available("data"):
        return shipped_layer("data", data)
    path = Path(data)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return Layer(f"{path}", read_file(path).get("config", {}))
    if not path.exists() and path.suffix == "" and len(path.parts) == 1:
        names = available("data")
        raise ConfigError(
            f"data={data}: neither a shipped data set{did_you_mean(data, names)} nor a file or folder here; "
            f"shipped are {', '.join(names)}"
        )
    return Layer(f"data={data}", {})


def read_file(path: Path) -> dict[str, Any]:
    """A user's YAML file as a mapping. Raises :class:`ConfigError` naming the file and, if known, the line."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML ({reason})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines, not a {type(content).__name__}")
    return content


def merge(base: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Lay ``values`` over ``base`` in place, section by section.

    A loss of another name brings its own options: those of the loss below do not stay.
    """
    for key, value in values.items():
        below = base.get(key)
        if key == "loss" and isinstance(below, dict) and _renames(below, value):
            base[key] = dict(value)
        elif isinstance(below, dict) and isinstance(value, Mapping):
            merge(below, value)
        else:
            base[key] = _copy(value)


def _renames(below: Mapping[str, Any], value: Any) -> bool:
    return isinstance(value, Mapping) and "name" in value and value["name"] != below.get("name")


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, Mapping) else value
