"""The hyper-parameters of a loss, read from its constructor's signature: checking, help, and building by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from aegl.errors import ConfigError
from aegl.longtail import LOSSES
from aegl.longtail.base import ClassificationLoss
from aegl.longtail.statistics import ClassStatistics

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


@dataclass(frozen=True)
class OptionHelp:
    """One hyper-parameter as shown to the user: its name, what is allowed, its default and one line of help."""

    name: str
    allowed: str
    default: Any
    help: str


def option_model(loss_class: type[ClassificationLoss]) -> type[BaseModel]:
    """The schema of a loss's hyper-parameters: its constructor's keyword-only parameters with types, ranges, defaults.

    Unknown keys, NaN and infinity are refused; instances are frozen.
    """
    constructor = loss_class.__init__
    hints = get_type_hints(constructor, include_extras=True)
    fields: dict[str, Any] = {
        parameter.name: (hints[parameter.name], parameter.default)
        for parameter in inspect.signature(constructor).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    return create_model(f"{loss_class.__name__}Options", __config__=config, **fields)


def loss_class(name: str) -> type[ClassificationLoss]:
    """The loss of this configuration name. Raises :class:`ConfigError` with the near names for an unknown one."""
    if name not in LOSSES:
        raise ConfigError(f"loss.name={name}: unknown loss{_near(name, LOSSES)}; known are {', '.join(LOSSES)}")
    return LOSSES[name]


def validate_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the hyper-parameters of a loss.

    Args:
        name: key of :data:`aegl.longtail.LOSSES`.
        options: hyper-parameters by name, without the prefix ``loss.``.

    Returns:
        Every hyper-parameter of the loss in its own type, those not given with their defaults.

    Raises:
        ConfigError: unknown loss, or every unknown option and every unusable value, one per line as ``loss.<option>``.
    """
    model = option_model(loss_class(name))
    try:
        return model.model_validate(dict(options)).model_dump()
    except ValidationError as error:
        failed = dict.fromkeys(str(problem["loc"][0]) for problem in error.errors())
        raise ConfigError("\n".join(_problem(name, model, key, options[key]) for key in failed)) from None


def build_loss(name: str, stats: ClassStatistics, /, **options: Any) -> ClassificationLoss:
    """Make the loss ``name`` for a training set, with checked hyper-parameters. Raises as :func:`validate_options`."""
    return loss_class(name)(stats, **validate_options(name, options))


def describe_options(name: str) -> list[OptionHelp]:
    """Help on every hyper-parameter of a loss, in the order of its constructor."""
    fields = option_model(loss_class(name)).model_fields
    return [OptionHelp(key, _allowed(field), field.default, field.description or "") for key, field in fields.items()]


def _problem(name: str, model: type[BaseModel], key: str, value: Any) -> str:
    if key not in model.model_fields:
        known = ", ".join(model.model_fields)
        return f"loss.{key}: unknown option of {name}{_near(key, model.model_fields)}; known are {known}"
    return f"loss.{key}={value}: must be {_allowed(model.model_fields[key])}"


def _near(word: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(known), n=2)
    return f", did you mean {' or '.join(matches)}?" if matches else ""


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
    return _TYPE_NAMES[annotation]
