"""The YAML files that come with aegl, and users' own methods: which there are, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from aegl.config.hints import did_you_mean
from aegl.config.values import read_mapping, shown
from aegl.errors import ConfigError

KINDS = ("data", "model", "schedule", "method", "recipe")
"""Folders of ``aegl.cfg``, in the order of their layers, weakest first."""
TIMM_PREFIX = "timm:"
ABOUT = ("reference", "description", "published", "measured", "note")
"""Blocks that are for people, not for the configuration."""
_OTHER_NAMES = {
    "model": f", or {TIMM_PREFIX}<name of a timm model>",
    "method": ", or the path of your own YAML file",
}


@cache
def available(kind: str) -> tuple[str, ...]:
    """Names of the shipped files of a kind, e.g. ``r50`` or, in a sub-folder, ``fbs_aegl/table5_r50``."""
    return tuple(sorted(_names(resources.files("aegl.cfg") / kind, "")))


def is_file(kind: str, name: str) -> bool:
    """Whether the name is the path of a user's own file; only methods have such."""
    return kind == "method" and name.endswith((".yaml", ".yml"))


def origin(kind: str, name: str) -> str:
    """How messages call a file."""
    return name if is_file(kind, name) else f"cfg/{kind}/{name}.yaml"


def read(kind: str, name: str) -> dict[str, Any]:
    """The whole content of a file.

    Raises:
        ConfigError: with near names for an unknown one, or if a user's own cannot be read.
    """
    if is_file(kind, name):
        return read_mapping(Path(name), f"{kind}={name}")
    if name not in available(kind):
        extra = _OTHER_NAMES.get(kind, "")
        near = did_you_mean(name, available(kind))
        raise ConfigError(
            f"{kind}={name}: unknown {kind}{near}; available: {', '.join(available(kind)) or 'none'}{extra}"
        )
    text = (resources.files("aegl.cfg") / kind / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text) or {})


def settings(kind: str, name: str) -> dict[str, Any]:
    """The part of a shipped file that is configuration."""
    if kind == "model" and name.startswith(TIMM_PREFIX):
        backbone = name.removeprefix(TIMM_PREFIX)
        if not backbone:
            raise ConfigError(f"model={name}: the name of a timm model is missing, e.g. model={TIMM_PREFIX}resnet26")
        return {"backbone": {"name": backbone}}
    content = read(kind, name)
    if kind == "data":
        return data_settings(content, origin(kind, name))
    found = {key: value for key, value in content.items() if key not in ABOUT}
    return _with_paths(found, Path(name).parent) if is_file(kind, name) else found


def _with_paths(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings with the Python files that they name, which lie beside the method's own, as paths from here."""
    found = {}
    for section, content in settings.items():
        part = content.get("name") if isinstance(content, Mapping) else None
        if isinstance(part, str) and part.endswith(".py"):
            content = {**content, "name": str(folder / part)}
        found[section] = content
    return found


def data_settings(content: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The part of a data YAML that is configuration: its ``config`` block and its ``bands``.

    Args:
        content: of the file.
        label: how messages call it.

    Raises:
        ConfigError: if the block is none, or bands stand in both places.
    """
    block, bands = content.get("config"), content.get("bands")
    if block is not None and not isinstance(block, Mapping):
        raise ConfigError(f"{label}: its `config` block must hold `key: value` lines, not {shown(block)}")
    settings = dict(block or {})
    if bands is None:
        return settings
    if "bands" in settings:
        raise ConfigError(f"{label}: `bands` stands twice, by itself and in the `config` block; give it once")
    return {"bands": bands, **settings}


def _names(folder: Traversable, prefix: str) -> list[str]:
    found: list[str] = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir():
            found += _names(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            found.append(prefix + entry.name.removesuffix(".yaml"))
    return found
