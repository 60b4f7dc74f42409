"""The text of ``cfg/default.yaml``, generated from the schema: ``python -m aegl.config.render`` prints it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from aegl.config.dump import inline
from aegl.config.fields import Key, keys
from aegl.config.schema import GROUPS, Config

_HEADER = """\
# Every key of aegl with its default: (what is allowed) what it means.
# Generated from aegl/config/{training,schema,sections}.py by `python -m aegl.config.render > cfg/default.yaml`.
# Give keys as key=value or --key value, nested ones with dots (loss.mu=0.7), or in a YAML file with cfg=<file>.
"""


def render_defaults() -> str:
    """The text of ``cfg/default.yaml``: every key once, with its type, range, choices and help."""
    return _HEADER + "".join(f"\n# {title}\n" + "\n".join(_group(names)) + "\n" for title, names in grouped_keys())


def grouped_keys() -> Iterator[tuple[str, list[str]]]:
    """Title and dotted keys of every group, in the schema's order."""
    title, names = "", list[str]()
    for name in keys():
        start = GROUPS.get(name.partition(".")[0])
        if start is not None and start != title:
            if names:
                yield title, names
            title, names = start, []
        names.append(name)
    yield title, names


def _group(names: list[str]) -> Iterator[str]:
    lines = [_line(keys()[name]) for name in names]
    width = max(len(text) for text, _ in lines)
    section = ""
    for name, (text, comment) in zip(names, lines, strict=True):
        head, dot, _ = name.partition(".")
        if dot and head != section:
            section = head
            yield f"{section}:  # {Config.model_fields[section].description}"
        yield f"{text:<{width}}  # {comment}"


def _line(key: Key) -> tuple[str, str]:
    dot, part = key.name.rpartition(".")[1:]
    return f"{'  ' if dot else ''}{part}: {inline(key.default)}", f"({key.allowed}) {key.help}"


if __name__ == "__main__":
    sys.stdout.write(render_defaults())
