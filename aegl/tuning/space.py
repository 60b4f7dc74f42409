"""What a search may choose: ranges of keys, as the user writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from aegl.config import Config, load_config
from aegl.config.fields import Key, keys
from aegl.config.layers import is_part_option
from aegl.config.values import convert, read_mapping, shown
from aegl.errors import ConfigError
from aegl.longtail.options import option_model
from aegl.longtail.parts import REGISTRIES

PREFIX = "space."
AUTO = "auto"
VERB_KEYS = ("space", "trials", "objective", "startup_trials", "prune")
"""Keys that say what is searched, and nothing about a run."""
_FIXED = (
    *VERB_KEYS, "data", "data_dir", "weights", "project", "name", "exist_ok", "resume", "device", "workers", "seed",
    "split", "protocol", "iterations", "epochs", "loggers", "callbacks", "report",
)  # fmt: skip
"""Keys that name the run, the machine, the yardstick or its length: a better figure by these is no better method."""
_RANGE = re.compile(r"^(?P<low>[^:]*?)\.\.(?P<high>[^:]*?)(?P<flags>(:[^:]+)*)$")
_SYNTAX = "write low..high, low..high:log, low..high:step=n, a|b|c, or auto"


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both among them.

    Args:
        low: the smallest.
        high: the largest.
        whole: whole numbers only.
        log: drawn evenly in the logarithm.
        step: distance of neighbouring values; None for any value (1 for whole numbers).
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]


Space = Mapping[str, Range | Choice]


def read_space(overrides: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Range | Choice]:
    """The space that a request names: ``space=`` (a YAML file or a mapping) and, stronger, ``space.<key>=<range>``.

    Args:
        overrides: of the verb.
        given: keys of every trial.

    Raises:
        ConfigError: naming every key that cannot be searched and every range that cannot be used, one per line.
    """
    asked = _asked(overrides)
    if not asked:
        raise ConfigError(f"space: not given; say what to search, e.g. space.lr=0.001..0.1:log ({_SYNTAX})")
    config = load_config({key: value for key, value in given.items() if key not in asked})
    space: dict[str, Range | Choice] = {}
    wrong: list[str] = []
    for name, value in asked.items():
        try:
            space[name] = _checked(name, _parse(name, value, _key(name, config)), given)
        except ConfigError as error:
            wrong += str(error).splitlines()
    if wrong:
        raise ConfigError("\n".join(wrong))
    return space


def as_texts(space: Space) -> dict[str, str]:
    """The space as a user would write it."""
    return {name: _text(allowed) for name, allowed in space.items()}


def _asked(overrides: Mapping[str, Any]) -> dict[str, Any]:
    whole = overrides.get("space")
    asked: dict[str, Any] = {}
    if isinstance(whole, Mapping):
        asked.update(whole)
    elif whole is not None:
        asked.update(read_mapping(Path(str(whole)), f"space={whole}"))
    asked.update({key[len(PREFIX) :]: value for key, value in overrides.items() if key.startswith(PREFIX)})
    return {str(key): value for key, value in asked.items()}


def _key(name: str, config: Config) -> Key:
    """Type and bounds of a key, or of an option of the part that the configuration names."""
    if name in _FIXED:
        raise ConfigError(f"{PREFIX}{name}: cannot be searched; it must be the same in all trials")
    if name in keys():
        return keys()[name]
    if is_part_option(name):
        section, _, option = name.partition(".")
        part: type = REGISTRIES[section].part(getattr(config, section).name)
        fields = option_model(part).model_fields
        if option in fields:
            return Key(name, fields[option])
    load_config({name: 0})  # says what is wrong with the name
    raise ConfigError(f"{PREFIX}{name}: is no key")


def _parse(name: str, value: Any, key: Key) -> Range | Choice:
    where = f"{PREFIX}{name}={shown(value)}"
    if isinstance(value, list | tuple):
        return Choice(tuple(_value(key, each, where) for each in value))
    text = str(value).strip()
    if text == AUTO:
        return _auto(key, where)
    match = _RANGE.match(text)
    if match is None:
        if "|" not in text:
            raise ConfigError(f"{where}: is no range; {_SYNTAX}")
        return Choice(tuple(_value(key, each.strip(), where) for each in text.split("|")))
    if key.kind not in (int, float):
        raise ConfigError(f"{where}: {name} is {key.allowed}, so it has no range; {_SYNTAX}")
    low, high = (_end(key, match[end].strip(), end, where) for end in ("low", "high"))
    return _range(key, low, high, [flag for flag in match["flags"].split(":") if flag], where)


def _range(key: Key, low: float, high: float, flags: list[str], where: str) -> Range:
    log, step = False, None
    for flag in flags:
        word, _, number = flag.partition("=")
        if flag == "log":
            log = True
        elif word == "step":
            step = _value(key, number, where)
        else:
            raise ConfigError(f"{where}: {flag}: unknown; {_SYNTAX}")
    if low >= high:
        raise ConfigError(f"{where}: must rise")
    if log and low <= 0:
        raise ConfigError(f"{where}: a logarithm needs a range above 0")
    if step is not None and (log or step <= 0):
        raise ConfigError(f"{where}: a step must be above 0 and goes without log")
    return Range(low, high, key.kind is int, log, step)


def _auto(key: Key, where: str) -> Range | Choice:
    if key.kind is bool:
        return Choice((False, True))
    choices = _choices(key)
    if choices:
        return Choice(choices)
    if key.kind not in (int, float):
        raise ConfigError(f"{where}: {key.name} is {key.allowed}; list the values, a|b|c")
    return _range(key, _end(key, "", "low", where), _end(key, "", "high", where), [], where)


def _choices(key: Key) -> tuple[Any, ...]:
    return next((get_args(each) for each in key.alternatives if get_origin(each) is Literal), ())


def _end(key: Key, text: str, end: str, where: str) -> float:
    """An end of a range; where it is left open, that of the key."""
    if text:
        value = _value(key, text, where)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{where}: {text} is no number")
        return value
    inside, outside, towards = ("ge", "gt", math.inf) if end == "low" else ("le", "lt", -math.inf)
    for constraint in key.field.metadata:
        if (bound := getattr(constraint, inside, None)) is not None:
            return float(bound) if key.kind is float else int(bound)
        if (bound := getattr(constraint, outside, None)) is not None:
            return math.nextafter(bound, towards) if key.kind is float else int(bound + math.copysign(1, towards))
    raise ConfigError(f"{where}: {key.name} is {key.allowed}, so the range needs its {end} end")


def _value(key: Key, text: Any, where: str) -> Any:
    try:
        value = convert(key, text)
        return float(value) if key.kind is float else value
    except (ValueError, TypeError):
        raise ConfigError(f"{where}: {shown(text)}: must be {key.allowed}") from None


def _checked(name: str, allowed: Range | Choice, given: Mapping[str, Any]) -> Range | Choice:
    """Refuse values that the configuration would refuse."""
    values = allowed.values if isinstance(allowed, Choice) else (allowed.low, allowed.high)
    if len(values) < 2:
        raise ConfigError(f"{PREFIX}{name}: one value is no choice; give {name}={shown(values[0])}")
    for value in values:
        load_config({**given, name: value})
    return allowed


def _text(allowed: Range | Choice) -> str:
    if isinstance(allowed, Choice):
        return "|".join(shown(value) for value in allowed.values)
    step = "" if allowed.step is None else f":step={allowed.step:g}"
    return f"{allowed.low:g}..{allowed.high:g}{':log' if allowed.log else ''}{step}"
