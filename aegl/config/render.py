"""The text of ``cfg/default.yaml``: every key once, with type, range and help. `python -m aegl.config.render` writes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from aegl.config.schema import Config

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_HEADER = "# Every key of aegl with its default. Generated from aegl/config/schema.py; do not edit by hand.\n\n"


def render_defaults() -> str:
    """The YAML text of all defaults."""
    return _HEADER + "\n".join(_lines(Config, "")) + "\n"


def describe(field: FieldInfo) -> str:
    """Type and range of a key in brackets, e.g. ``(number, > 0, <= 1)``."""
    bounds = [
        f"{sign} {getattr(constraint, bound):g}"
        for constraint in field.metadata
        for bound, sign in _BOUNDS.items()
        if getattr(constraint, bound, None) is not None
    ]
    return f"({', '.join([_type(field.annotation), *bounds])})"


def _lines(model: type[BaseModel], indent: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield f"\n{indent}{name}:  # {field.description}"
            yield from _lines(type(default), indent + "  ")
        else:
            yield f"{indent}{name}: {_inline(default)}  # {describe(field)} {field.description}"


def _inline(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0].strip()


def _type(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join("null" if part is NoneType else _type(part) for part in get_args(annotation))
    if get_origin(annotation) is Literal:
        return " | ".join(str(choice) for choice in get_args(annotation))
    if get_origin(annotation) is list:
        return f"list of {_type(get_args(annotation)[0])}s"
    return {bool: "true | false", int: "whole number", float: "number", str: "text"}[annotation]


if __name__ == "__main__":
    sys.stdout.write(render_defaults())
