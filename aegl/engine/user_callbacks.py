"""Callbacks from a user's own files, as `callbacks=` names them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path

from aegl.engine.callbacks import Callback
from aegl.errors import ConfigError
from aegl.longtail.registry import load_module

KEY = "callbacks"


def callback_class(text: str) -> type[Callback]:
    """The class that a text names.

    Args:
        text: ``file.py:Class``, or ``file.py`` where the file defines one callback.

    Raises:
        ConfigError: if the file, or the callback in it, cannot be found or imported.
    """
    file, _, name = (text, "", "") if text.endswith(".py") else text.rpartition(":")
    if not file.endswith(".py"):
        raise ConfigError(f"{KEY}={text}: names no .py file; write file.py:Class")
    module = load_module(Path(file), KEY)
    own = {
        each: kind
        for each, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Callback) and kind.__module__ == module.__name__ and not each.startswith("_")
    }
    found = ", ".join(own) or "none"
    if name and name not in own:
        raise ConfigError(f"{KEY}={text}: no callback of that name; {file} defines {found}")
    if not name and len(own) != 1:
        raise ConfigError(f"{KEY}={text}: name one callback as {file}:Class; {file} defines {found}")
    return own[name or next(iter(own))]


def make_callbacks(texts: Iterable[str]) -> list[Callback]:
    """A callback of every named class, made without arguments.

    Raises:
        ConfigError: as :func:`callback_class`, or if one cannot be made.
    """
    return [_make(text) for text in texts]


def _make(text: str) -> Callback:
    kind = callback_class(text)
    try:
        return kind()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{KEY}={text}: cannot be made without arguments ({reason})") from error
