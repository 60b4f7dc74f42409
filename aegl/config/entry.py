"""A name with keys of its own behind it, in one word: ``softmax_ce+sampler=rfs+lr=0.01``."""

from __future__ import annotations

import re

_NEXT_KEY = re.compile(r"\+(?=[A-Za-z_][\w.]*=)")


def parse_entry(text: str) -> tuple[str, dict[str, str]]:
    """The name and the keys. A plus sign inside a value stays one: only one before ``key=`` divides.

    Raises:
        ValueError: if the text does not begin with a name.
    """
    name, *pairs = (part.strip() for part in _NEXT_KEY.split(text.strip()))
    if not name or "=" in name:
        raise ValueError(f"`{text}` does not begin with a name")
    return name, {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
