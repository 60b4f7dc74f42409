"""The one figure that decides which weights of a run are the best, and how well a run did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FITNESS = "fitness"
"""Name of that figure among those of an evaluation."""
NOTHING_SCORED = -1.0


def fitness(summary: Mapping[str, Any]) -> float:
    """What ``best.pt`` is best in: mask AP, or box AP without masks; -1 where nothing was scored."""
    value = figure(summary, "AP")
    return NOTHING_SCORED if value is None else value


def figure(summary: Mapping[str, Any], name: str) -> float | None:
    """A figure of an evaluation, in [0, 1].

    Args:
        summary: as :func:`aegl.metrics.summary_json` gives it.
        name: ``fitness``; a figure (``APr``), of masks or, without masks, of boxes; or one of a kind (``box/APr``).

    Returns:
        None where the evaluation has no such figure.
    """
    if name == FITNESS:
        return fitness(summary)
    kind, slash, rest = name.partition("/")
    for chosen in (kind,) if slash else ("mask", "box"):
        value = (summary.get(chosen) or {}).get(rest if slash else name)
        if value is not None:
            return float(value)
    return None
