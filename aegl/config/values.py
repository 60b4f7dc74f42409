"""From texts to values: what a user typed, or a YAML file holds, in the type of its key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml

from aegl.config.dump import inline
from aegl.config.fields import Key
from aegl.errors import ConfigError

_NULLS = {"null", "~", "none", ""}


def convert(key: Key, value: Any) -> Any:
    """``value`` made ready for the schema, which checks its range.

    Texts are read as YAML unless the key holds text; ``96,112`` is a list of two; numbers are texts for keys that hold
    text (``name=2024``).

    Raises:
        ValueError: if the value is of another kind than the key, where the schema would not notice (``batch=true``).
    """
    if isinstance(value, PurePath):
        value = str(value)
    if key.kind is list:
        return _list(key, value)
    if isinstance(value, str):
        value = _scalar(key.kind, value, nullable=key.nullable)
    return _plain(key.kind, value)


def parse_free(value: Any) -> Any:
    """A value whose type is not known to the schema (a loss's option): texts are read as YAML."""
    return _yaml_or_text(value) if isinstance(value, str) else value


def read_mapping(path: Path, label: str) -> dict[str, Any]:
    """The content of a YAML file that must hold ``key: value`` lines.

    Args:
        path: the file.
        label: how messages name it, e.g. ``cfg=my.yaml``.

    Raises:
        ConfigError: if it is missing, unreadable, no YAML, or no mapping.
    """
    content = read_yaml(path, label)
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{label}: must hold `key: value` lines, it holds {_kind_of(content)}")
    return dict(content)


def read_yaml(path: Path, label: str) -> Any:
    """The content of any YAML file. Raises :class:`ConfigError` if it is missing, unreadable or no YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{label}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text file"
        raise ConfigError(f"{label}: cannot be read ({reason})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{label}: no valid YAML ({' '.join(str(error).split())})") from error


def shown(value: Any) -> str:
    """A value as the user would write it, cut to a readable length."""
    try:
        text = value if isinstance(value, str) else inline(value)
    except yaml.YAMLError:  # an object that no YAML file could hold
        text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _list(key: Key, value: Any) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if key.nullable and text.lower() in _NULLS:
            return None
        parsed = _yaml_or_text(text) if text.startswith("[") else [part.strip() for part in text.split(",") if text]
        value = parsed if isinstance(parsed, list) else [parsed]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    kind = key.item_kind or str
    return [_plain(kind, _scalar(kind, v, nullable=False) if isinstance(v, str) else v) for v in value]


def _scalar(kind: type, text: str, *, nullable: bool) -> Any:
    if nullable and text.strip().lower() in _NULLS:
        return None
    return text if kind is str else _yaml_or_text(text)


def _plain(kind: type, value: Any) -> Any:
    """Guard the conversions in which pydantic is more lenient than a user would want."""
    if isinstance(value, bool) and kind in (int, float):
        raise ValueError("true and false are no numbers")
    if kind is bool and isinstance(value, int | float) and not isinstance(value, bool) and value not in (0, 1):
        raise ValueError("only 0 and 1 stand for false and true")
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _yaml_or_text(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _kind_of(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"`{shown(value)}`"
