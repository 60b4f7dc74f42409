"""The keys of the schema as a flat table: dotted name, type, and what a value may be, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from aegl.config.schema import Config
from aegl.config.sections import PartSection

_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Args:
        name: dotted name, e.g. ``rpn.nms_iou``.
        field: pydantic's description of it.
    """

    name: str
    field: FieldInfo

    @property
    def default(self) -> Any:
        """The schema's default."""
        return self.field.get_default(call_default_factory=True)

    @property
    def help(self) -> str:
        """What the key means."""
        return self.field.description or ""

    @property
    def alternatives(self) -> tuple[Any, ...]:
        """The types a value may have; ``NoneType`` among them where null is allowed."""
        return tuple(_bare(alternative) for alternative in self._annotations)

    @property
    def _annotations(self) -> tuple[Any, ...]:
        annotation = self.field.annotation
        return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)

    @property
    def nullable(self) -> bool:
        """Whether null is allowed."""
        return NoneType in self.alternatives

    @property
    def kind(self) -> type:
        """``bool``, ``int``, ``float``, ``str`` (choices too) or ``list``."""
        main = next(alternative for alternative in self.alternatives if alternative is not NoneType)
        if get_origin(main) is Literal:
            return str
        return list if get_origin(main) is list else main

    @property
    def item_kind(self) -> type | None:
        """Type of a list's items, None for other keys."""
        main = self.alternatives[0]
        return get_args(main)[0] if get_origin(main) is list else None

    @property
    def allowed(self) -> str:
        """What a value may be, e.g. ``a whole number >= 1`` or ``one of none, bf16, fp16``."""
        kinds = [_words(alternative, _length(self.field.metadata)) for alternative in self.alternatives]
        bounds = " and ".join(
            f"{sign} {getattr(constraint, bound):g}"
            for constraint in [*self.field.metadata, *_own_metadata(self._annotations[0])]
            for bound, sign in _BOUNDS.items()
            if hasattr(constraint, bound)
        )
        kinds[0] = f"{kinds[0]} {bounds}".rstrip()
        return ", or ".join(kinds)


@cache
def keys() -> dict[str, Key]:
    """Every key by its dotted name, in the schema's order; of a method's part only its ``name``."""
    return {key.name: key for key in _walk(Config, "")}


@cache
def sections() -> dict[str, type[BaseModel]]:
    """The groups of nested keys, by name."""
    return {name: kind for name, field in Config.model_fields.items() if (kind := _section(field)) is not None}


@cache
def part_sections() -> tuple[str, ...]:
    """The sections that name a part of a long-tail method and hold its options."""
    return tuple(name for name, kind in sections().items() if issubclass(kind, PartSection))


def _walk(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        section = _section(field)
        if section is None:
            yield Key(prefix + name, field)
        else:
            yield from _walk(section, f"{prefix}{name}.")


def _section(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _bare(annotation: Any) -> Any:
    """A type without constraints of its own."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _own_metadata(annotation: Any) -> list[Any]:
    """Constraints of one alternative of several (``Annotated[int, Field(ge=1)] | Literal["auto"]``)."""
    if get_origin(annotation) is not Annotated:
        return []
    return [m for extra in get_args(annotation)[1:] for m in getattr(extra, "metadata", [extra])]


def _words(annotation: Any, length: str) -> str:
    if get_origin(annotation) is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if get_origin(annotation) is list:
        return f"a list of {length}{_PLURALS[get_args(annotation)[0]]}"
    return _WORDS[annotation]


def _length(metadata: list[Any]) -> str:
    least = next((m.min_length for m in metadata if hasattr(m, "min_length")), None)
    most = next((m.max_length for m in metadata if hasattr(m, "max_length")), None)
    if least is None:
        return ""
    return f"{least} or more " if most is None else f"{least} to {most} "
