"""The YAML files that come with aegl: which there are, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from aegl.config.hints import did_you_mean
from aegl.config.values import shown
from aegl.errors import ConfigError

KINDS = ("data", "model", "method", "schedule", "recipe")
"""Folders of ``aegl.cfg``, in the order of their layers, weakest first."""
TIMM_PREFIX = "timm:"
ABOUT = ("reference", "description")
"""Blocks that are for people, not for the configuration."""


@cache
def available(kind: str) -> tuple[str, ...]:
    """Names of the shipped files of a kind, e.g. ``r50`` or, in a sub-folder, ``fbs_aegl/table5_r50``."""
    return tuple(sorted(_names(resources.files("aegl.cfg") / kind, "")))


def origin(kind: str, name: str) -> str:
    """How messages call a shipped file."""
    return f"cfg/{kind}/{name}.yaml"


def read(kind: str, name: str) -> dict[str, Any]:
    """The whole content of a shipped file. Raises :class:`ConfigError` with near names for an unknown one."""
    if name not in available(kind):
        extra = f", or {TIMM_PREFIX}<name of a timm model>" if kind == "model" else ""
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
    return {key: value for key, value in content.items() if key not in ABOUT}


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
