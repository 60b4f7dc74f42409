"""Which run `resume=true` means, whether it can go on, and from what."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aegl.config import Config, complete_parts, flatten, load_config, resolve
from aegl.config.load import ARGUMENTS
from aegl.config.values import shown
from aegl.engine import runs
from aegl.engine.checkpoint import Checkpoint, load_checkpoint
from aegl.errors import CheckpointError, ConfigError

LOGGER = logging.getLogger("aegl")

_MAY_DIFFER = ("resume", "weights", "project", "name", "exist_ok", "device", "workers", "cfg")
"""Keys that name the run or the machine, not what is trained."""


def run_to_resume(config: Config) -> Path:
    """Folder of the run that ``weights``, ``name`` or, without either, the newest checkpoint of the project means.

    Raises:
        CheckpointError: if there is no such run.
    """
    if config.weights is not None:
        return runs.run_of(config.weights)
    run = runs.newest_run(config.project) if config.name is None else Path(config.project) / config.name
    if not (run / runs.ARGS_FILE).is_file():
        raise CheckpointError(f"{run}: holds no {runs.ARGS_FILE}, so there is no run to resume")
    return run


def open_run(run: Path, config: Config) -> tuple[Config, Checkpoint | None]:
    """The saved configuration of a run, on the device and with the workers of ``config``, and its last checkpoint.

    There is none where the run was stopped in the stage before its own.

    Raises:
        CheckpointError: if there is no checkpoint, or it cannot be read.
    """
    saved = load_config({"cfg": str(run / runs.ARGS_FILE), "device": config.device, "workers": config.workers})
    last = run / runs.WEIGHTS_FOLDER / "last.pt"
    if not last.is_file():
        if saved.stage.after is not None and saved.weights is None:
            return saved, None
        raise CheckpointError(f"{run}: was stopped before its first checkpoint; start it anew with exist_ok=true")
    checkpoint = load_checkpoint(last)
    LOGGER.info("resuming %s after step %d; its own configuration holds", run, checkpoint.iteration)
    return saved, checkpoint


def refuse_changes(run: Path, overrides: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` where something else is asked for than the run was started with."""
    given = {key: value for key, value in overrides.items() if key not in _MAY_DIFFER}
    args = str(run / runs.ARGS_FILE)
    wanted, saved = resolve({**given, "cfg": args}), flatten(complete_parts(load_config({"cfg": args})))
    changed = [
        f"{key}={shown(value)}: {run} was started with {shown(saved.get(key))}"
        for key, value in flatten(wanted.config).items()
        if wanted.origins[key] == ARGUMENTS and saved.get(key) != value
    ]
    if changed:
        raise ConfigError("\n".join(changed) + "\nresume=true goes on as begun; leave these out, or start a new run")


def refuse_finished(run: Path, checkpoint: Checkpoint, iterations: int) -> None:
    """Raise :class:`CheckpointError` if the run has done all its ``iterations``, its last evaluation and its record."""
    state = checkpoint.training
    done = state is not None and state.iteration >= iterations and state.validated == state.iteration
    if done and (run / runs.TRAINED_FILE).is_file():
        best = run / runs.WEIGHTS_FOLDER / "best.pt"
        raise CheckpointError(
            f"{run}: all its {iterations} steps are done, so there is nothing to resume; to train further, start a new "
            f"run with weights={best}"
        )
