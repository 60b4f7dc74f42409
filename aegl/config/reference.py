"""Pages and tables generated from the schema and the shipped methods.

``python -m aegl.config.reference`` prints ``docs/reference/keys.md``, with the word ``methods`` README's table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from aegl.config import shipped
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


def methods() -> str:
    """A row for each method that is shipped: its key, year, what it touches, and what it published on LVIS v1.0."""
    head = "| key | year | touches | published, LVIS v1.0, ResNet-50: best mask AP, and of rare classes |"
    return "\n".join([head, "|---|---:|---|---|", *map(_method_row, shipped.available("method"))]) + "\n"


def _method_row(name: str) -> str:
    about = shipped.read("method", name)["reference"]
    rows = [row for row in about.get("published", ()) if (row.get("data"), row.get("backbone")) == ("lvis_v1", "r50")]
    best: dict[str, Any] = max((row for row in rows if "mask_ap" in row), key=lambda row: row["mask_ap"], default={})
    figures = ", ".join(f"{best[key]:g}" for key in ("mask_ap", "ap_r") if key in best)
    source = f" ({best['source']})" if best else ""
    return f"| `{name}` | {about['year']} | {', '.join(about['touches'])} | {figures}{source} |"


if __name__ == "__main__":
    sys.stdout.write(methods() if sys.argv[1:] == ["methods"] else reference())
