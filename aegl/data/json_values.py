"""What a value of an annotation file is. JSON knows one kind of number, and Python's ``bool`` is an ``int``."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, TypeGuard

_NUMERIC = {int, float}
_HUGE = 1e300
"""Bound of every number: beyond it float64 ends, and sums of a few numbers would."""
_LONGEST = 60


def are_numbers(values: Collection[Any]) -> bool:
    """Whether all are finite numbers. Quick, as files hold many millions of coordinates."""
    return set(map(type, values)) <= _NUMERIC and all(map(_HUGE.__gt__, map(abs, values)))


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return are_numbers((value,))


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number of 64 bits; ``3.0`` is one, as some programs write all numbers so."""
    whole = type(value) is int or (type(value) is float and value.is_integer())
    return whole and -(2**63) <= value < 2**63


def is_text(value: Any) -> TypeGuard[str]:
    """Whether it is text that a file system can take."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can express
        return False
    return True


def short(value: Any) -> str:
    """A value as the file has it, cut to a readable length."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
