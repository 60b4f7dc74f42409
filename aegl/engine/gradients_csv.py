"""``gradients.csv``: per class, what has pushed its score up and down since training began."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from aegl.engine import runs
from aegl.engine.callbacks import Callback
from aegl.errors import RunError
from aegl.longtail.gradients import GradientAccount
from aegl.longtail.statistics import ClassStatistics

LOGGER = logging.getLogger("aegl")

COLUMNS = (
    "class",
    "band",
    "instances",
    "positive",
    "negative_foreground",
    "negative_background",
    "foreground_share",
    "active_foreground",
    "active_background",
)
"""The first sums are of ``|dL/dz|``; shares lie in [0, 1], and are empty where there is nothing to share."""


class GradientsCsv(Callback):
    """Writes the account anew with every checkpoint.

    Args:
        path: the file.
        account: filled by the model in training.
        names: of the classes.
        statistics: of the training set.
    """

    def __init__(
        self, path: Path, account: GradientAccount, *, names: Sequence[str], statistics: ClassStatistics
    ) -> None:
        self._path = path
        self._account = account
        self._names = names
        self._statistics = statistics

    def on_checkpoint(self, iteration: int, path: Path) -> None:
        """Write the file."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        statistics, account = self._statistics, self._account
        bands = [statistics.band_names[band] for band in statistics.class_band.tolist()]
        figures = [*account.sums.tolist(), account.foreground_share().tolist(), *account.active_share().tolist()]
        for row in zip(self._names, bands, statistics.instance_counts.tolist(), *figures, strict=True):
            writer.writerow([_shown(value) if isinstance(value, float) else value for value in row])
        try:
            runs.write_text(self._path, text.getvalue())
        except RunError as error:  # a full disk, say: no reason to stop training
            LOGGER.warning("%s. It is written again with the next checkpoint", error)


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.8g}"
