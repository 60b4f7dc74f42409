"""`aegl plot`, `aegl report`, and the report that every training and evaluation ends with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from aegl.config import Config, load_config
from aegl.data_tasks import open_source
from aegl.errors import AeglError, ConfigError
from aegl.progress import Progress
from aegl.trained import Overrides

LOGGER = logging.getLogger("aegl")


def plot(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Draw figures of runs and data sets; see :func:`aegl.plotting.plot.plot` for what comes back."""
    from aegl.plotting import plot as plotting

    return plotting.plot(overrides, progress, open_source)


def report(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Write the page of the runs of `runs=`, side by side; into `output=`, or into the first one's folder.

    Returns:
        ``{"report": path, "runs": [folders]}``.
    """
    config = load_config(overrides)
    if not config.runs:
        raise ConfigError("runs: not given; name the folders of runs: aegl report runs/train runs/train2")
    from aegl.reporting.report import COMPARISON_FILE, REPORT_FILE

    name = REPORT_FILE if len(config.runs) == 1 else COMPARISON_FILE
    output = Path(config.runs[0]) / name if config.output is None else Path(config.output)
    return {"report": str(_write(config.runs, output)), "runs": list(config.runs)}


def report_of(run: Path, config: Config) -> dict[str, str]:
    """``{"report": path}`` of the page written into a run's folder; empty where none is wanted or can be made.

    What a run has found is kept whether or not it can be shown: the reason is told, and the run has not failed.
    """
    if not config.report:
        return {}
    from aegl.reporting.report import REPORT_FILE

    try:
        return {"report": str(_write([str(run)], run / REPORT_FILE))}
    except AeglError as error:
        LOGGER.warning("no report was written: %s", error)
        return {}


def _write(folders: list[str], output: Path) -> Path:
    from aegl.environment import describe_environment
    from aegl.reporting.report import write_report

    return write_report(folders, output, describe_environment())
