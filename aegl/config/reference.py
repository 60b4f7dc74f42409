"""The text of ``docs/reference/keys.md``, generated from the schema: ``python -m aegl.config.reference`` prints it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from aegl.config.dump import inline
from aegl.config.fields import keys
from aegl.config.render import grouped_keys

_HEAD = """\
# Configuration keys

Generated from the schema by `python -m aegl.config.reference > docs/reference/keys.md`. Give keys as `key=value` or
`--key value`, or in a YAML file with `cfg=file.yaml`. `aegl <verb> --help` lists those that matter to a verb,
`aegl methods <name>` the options of a method.
"""


def reference() -> str:
    """Every key with what it may be, its default and its meaning, a table for each group."""
    return _HEAD + "".join(f"\n## {title}\n\n" + "\n".join(_table(names)) + "\n" for title, names in grouped_keys())


def _table(names: list[str]) -> Iterator[str]:
    yield "| key | allowed | default | meaning |"
    yield "|---|---|---|---|"
    for name in names:
        key = keys()[name]
        cells = (f"`{name}`", key.allowed, f"`{inline(key.default)}`", key.help)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(reference())
