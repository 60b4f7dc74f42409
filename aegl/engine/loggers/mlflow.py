"""MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from aegl.engine.loggers.tracker import Tracker

EXPERIMENT = "aegl"
"""Experiment of the runs, unless ``MLFLOW_EXPERIMENT_NAME`` names one."""
_PARAMS_AT_ONCE = 100
_LONGEST_PARAM = 500
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""How long a server that is down holds up training, unless the user says otherwise; MLflow's own is many minutes."""


class MlflowLogger(Tracker):
    """Records a run with MLflow, whose own environment variables hold: ``MLFLOW_TRACKING_URI``, say.

    Args:
        folder: of the run; its name is the run's.
        config: dotted keys to values.
        resumed: whether the run goes on from a checkpoint.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, resumed: bool) -> None:
        super().__init__("mlflow", folder, config, resumed=resumed)
        self._client: Any = None
        self._run = ""

    def begin(self, run: str | None) -> str:
        """Open it; a resumed run is set going again."""
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        client = MlflowClient()
        if run is None:
            created = client.create_run(
                _experiment(client), run_name=self.folder.name, tags={"folder": str(self.folder)}
            )
            run = created.info.run_id
            params = [Param(key, str(value)[:_LONGEST_PARAM]) for key, value in self.config.items()]
            for first in range(0, len(params), _PARAMS_AT_ONCE):
                client.log_batch(run, params=params[first : first + _PARAMS_AT_ONCE])
        else:
            client.update_run(run, status="RUNNING")
        self._client, self._run = client, run
        return run

    def record(self, figures: Mapping[str, float], iteration: int) -> None:
        """Tell it, in one request."""
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, iteration) for name, value in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def end(self, *, complete: bool) -> None:
        """Say how it ended."""
        self._client.set_terminated(self._run, status="FINISHED" if complete else "FAILED")


def _experiment(client: MlflowClient) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name)) if found is None else str(found.experiment_id)
