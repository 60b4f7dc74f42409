"""The options of a part, read from its constructor's signature: checking and help."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from aegl.errors import ConfigError

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


@dataclass(frozen=True)
class OptionHelp:
    """One option as shown to the user: its name, what is allowed, its default and one line of help."""

    name: str
    allowed: str
    default: Any
    help: str


@cache
def option_model(part: type[Any]) -> type[BaseModel]:
    """The schema of a part's options: its constructor's keyword-only parameters with types, ranges, defaults.

    Unknown keys, NaN and infinity are refused; instances are frozen.
    """
    constructor = part.__init__
    hints = get_type_hints(constructor, include_extras=True)
    fields: dict[str, Any] = {
        parameter.name: (hints[parameter.name], parameter.default)
        for parameter in inspect.signature(constructor).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    return create_model(f"{part.__name__}Options", __config__=config, **fields)


def check_options(part: type, options: Mapping[str, Any], *, section: str, name: str) -> dict[str, Any]:
    """Check the options of a part.

    Args:
        part: the class.
        options: by name, without the section.
        section: of the configuration, for messages.
        name: of the part, for messages.

    Returns:
        Every option of the part in its own type, those not given with their defaults.

    Raises:
        ConfigError: every unknown option and every unusable value, one per line as ``<section>.<option>``.
    """
    model = option_model(part)
    try:
        return model.model_validate(dict(options)).model_dump()
    except ValidationError as error:
        failed = dict.fromkeys(str(problem["loc"][0]) for problem in error.errors())
        lines = [_problem(section, name, model, key, options[key]) for key in failed]
        raise ConfigError("\n".join(lines)) from None


def describe_options(part: type) -> list[OptionHelp]:
    """Help on every option of a part, in the order of its constructor."""
    fields = option_model(part).model_fields
    return [OptionHelp(key, _allowed(field), field.default, field.description or "") for key, field in fields.items()]


def near(word: str, known: Iterable[str]) -> str:
    """``, did you mean ...?`` for a misspelt word, or nothing."""
    matches = difflib.get_close_matches(word, list(known), n=2)
    return f", did you mean {' or '.join(matches)}?" if matches else ""


def _problem(section: str, name: str, model: type[BaseModel], key: str, value: Any) -> str:
    fields = model.model_fields
    if key not in fields:
        known = f"known are {', '.join(fields)}" if fields else "it has none"
        return f"{section}.{key}: unknown option of {name}{near(key, fields)}; {known}"
    return f"{section}.{key}={value}: must be {_allowed(fields[key])}"


def _allowed(field: FieldInfo) -> str:
    """What a value may be, in words, e.g. ``a number >= 0 and < 1``."""
    bounds = " and ".join(
        f"{sign} {getattr(constraint, bound):g}"
        for constraint in field.metadata
        for bound, sign in _BOUNDS.items()
        if hasattr(constraint, bound)
    )
    kinds = [_kind(alternative) for alternative in _alternatives(field.annotation)]
    kinds[0] = f"{kinds[0]} {bounds}".rstrip()
    return ", or ".join(kinds)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(str(choice) for choice in get_args(annotation))}"
    if get_origin(annotation) is list:
        return f"a list, each {_kind(get_args(annotation)[0])}"
    return _TYPE_NAMES[annotation]
