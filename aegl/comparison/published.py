"""Published figures of a configuration: from its recipe, or from its method's rows for the same data and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aegl.config import Config, complete_parts, load_config, shipped
from aegl.config.fields import part_sections

_ROW = {"data": "data", "backbone": "model", "sampler": "sampler"}
"""What a method's published row states, and the key it is a value of."""


@dataclass(frozen=True)
class Published:
    """Published figures, in percent.

    Args:
        source: where they stand; empty where there are none.
        figures: by name (``mask/APr``).
    """

    source: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


def published_for(config: Config) -> Published:
    """The figures published for a configuration; none where its data, model, sampler or method differ from theirs.

    The length of training may differ: a shorter run is what one compares with a published one.
    """
    if config.recipe in shipped.available("recipe"):
        recipe = load_config({"recipe": config.recipe})
        if _same_method(config, recipe) and all(_same(config, recipe, key) for key in _ROW.values()):
            row = shipped.read("recipe", str(config.recipe)).get("published", {})
            return Published(f"Table {row.get('table')}, {row.get('row')}", _figures(row))
    rows = _rows_of_method(config)
    if rows and _same_method(config, load_config({key: getattr(config, key) for key in ("data", "model", "method")})):
        return Published(str(rows[0].get("source", "")), _figures(rows[0]))
    return Published()


def _rows_of_method(config: Config) -> list[Mapping[str, Any]]:
    """Rows of the method's file for this data, backbone and sampler; one that leaves one of them open is not."""
    if config.method not in shipped.available("method"):
        return []
    rows = shipped.read("method", config.method).get("reference", {}).get("published") or ()
    return [row for row in rows if all(row.get(name) == getattr(config, key) for name, key in _ROW.items())]


def _same_method(left: Config, right: Config) -> bool:
    if left.method != right.method:
        return False
    complete = complete_parts(left), complete_parts(right)
    return all(_same(*complete, section) for section in (*part_sections(), "stage", "box", "mask", "backbone"))


def _same(left: Config, right: Config, key: str) -> bool:
    return bool(getattr(left, key) == getattr(right, key))


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    """``box_ap``, ``mask_ap``, ``box_ar``, ``ap_<band>`` (of masks) and ``box_ap_<band>`` to names of figures."""
    found: dict[str, float] = {}
    for key, value in row.items():
        kind, _, rest = key.partition("_") if key.startswith(("box_", "mask_")) else ("mask", "", key)
        figure, _, band = rest.partition("_")
        if figure in ("ap", "ar") and value is not None:
            found[f"{kind}/{figure.upper()}{band}"] = float(value)
    return found
