"""Figures of several runs of one entry as mean and spread, beside the published ones."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PERCENT = 100.0


@dataclass(frozen=True)
class Figure:
    """One figure of one entry, in percent.

    Args:
        published: as published, None where it is not.
        values: by seed, of the runs that gave the figure.
    """

    published: float | None
    values: Mapping[int, float]

    @property
    def mean(self) -> float | None:
        """Mean over the seeds."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds (n - 1 in the denominator); None for fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


def figure_names(bands: Sequence[str], published: Iterable[Mapping[str, float]]) -> list[str]:
    """What is compared: AP of boxes and masks, of masks and of boxes per band, and what else is published."""
    usual = ["box/AP", "mask/AP", *(f"{kind}/AP{band}" for kind in ("mask", "box") for band in bands)]
    further = dict.fromkeys(name for figures in published for name in figures if name not in usual)
    return [*usual, *further]


def figures_of(
    names: Sequence[str], metrics: Mapping[int, Mapping[str, Any]], published: Mapping[str, float]
) -> dict[str, Figure]:
    """The figures of an entry.

    Args:
        names: as :func:`figure_names` gives them, ``<kind>/<figure>``.
        metrics: summaries (see :func:`aegl.metrics.summary_json`) by seed.
        published: figures in percent by name.
    """
    found = {}
    for name in names:
        kind, _, figure = name.partition("/")
        values = {seed: (summary.get(kind) or {}).get(figure) for seed, summary in metrics.items()}
        own = {seed: PERCENT * value for seed, value in values.items() if value is not None}
        found[name] = Figure(published.get(name), own)
    return found
