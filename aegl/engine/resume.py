"""Which run `resume=true` and `resume=auto` mean, whether it can go on, and from what."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aegl.config import Config, complete_parts, flatten, load_config, resolve
from aegl.config.load import ARGUMENTS
from aegl.config.values import shown
from aegl.engine import runs
from aegl.engine.checkpoint import Checkpoint, DamagedCheckpointError, load_checkpoint
from aegl.engine.results_csv import last_iteration
from aegl.errors import CheckpointError, ConfigError

LOGGER = logging.getLogger("aegl")

_MAY_DIFFER = ("resume", "weights", "project", "name", "exist_ok", "device", "workers", "cfg", "max_bad_images")
"""Keys that name the run or the machine, not what is trained."""


class Continuation(NamedTuple):
    """What a run goes on from.

    Args:
        config: its own configuration, on the device and with the workers that were asked for.
        checkpoint: its state; None where it was stopped in the stage before its own.
        file: where the checkpoint was read.
    """

    config: Config
    checkpoint: Checkpoint | None
    file: Path | None


def run_to_resume(config: Config) -> Path:
    """Folder of the run that ``weights``, ``name`` or, without either, the newest checkpoint of the project means.

    Raises:
        CheckpointError: if there is no such run.
    """
    if config.resume == "auto":  # weights= is what it starts from where it has not begun
        return Path(config.project) / str(config.name)
    if config.weights is not None:
        return runs.run_of(config.weights)
    run = runs.newest_run(config.project) if config.name is None else Path(config.project) / config.name
    if not (run / runs.ARGS_FILE).is_file():
        raise CheckpointError(f"{run}: holds no {runs.ARGS_FILE}, so there is no run to resume")
    return run


def begun(run: Path) -> bool:
    """Whether a folder holds a run that has written a checkpoint."""
    return (run / runs.ARGS_FILE).is_file() and bool(_checkpoints(run))


def open_run(run: Path, config: Config) -> Continuation:
    """The saved configuration of a run, on the device and with the workers of ``config``, and its last checkpoint.

    That is ``last.pt``, or, if it is damaged, ``previous.pt``: a warning says what that costs. ``weights=`` may name
    ``previous.pt`` to go on from it in any case. There is no checkpoint where the run was stopped in the stage before
    its own.

    Raises:
        CheckpointError: if there is no checkpoint, or none can be read.
    """
    saved = load_config({"cfg": str(run / runs.ARGS_FILE), "device": config.device, "workers": config.workers})
    # Else a run that an unreadable image has stopped could not be told to go on without it.
    bad_images = max(saved.max_bad_images, config.max_bad_images)
    saved = saved.model_copy(update={"max_bad_images": bad_images})
    names_file = config.weights is not None and config.resume != "auto"
    found, asked_for = _checkpoints(run), Path(str(config.weights)).name if names_file else None
    if asked_for == runs.PREVIOUS_FILE:
        found = [path for path in found if path.name == asked_for]
    if not found:
        if saved.stage.after is not None and saved.weights is None:
            return Continuation(saved, None, None)
        raise CheckpointError(f"{run}: was stopped before its first checkpoint; start it anew with exist_ok=true")
    file, checkpoint = _load_first_whole(run, found, asked_for)
    LOGGER.info("resuming %s after step %d; its own configuration holds", run, checkpoint.iteration)
    return Continuation(saved, checkpoint, file)


def _checkpoints(run: Path) -> list[Path]:
    """Files to resume from, the best one first."""
    weights = run / runs.WEIGHTS_FOLDER
    return [path for name in (runs.LAST_FILE, runs.PREVIOUS_FILE) if (path := weights / name).is_file()]


def _load_first_whole(run: Path, found: list[Path], asked_for: str | None) -> tuple[Path, Checkpoint]:
    """The first of the files that is not damaged; says so if it is not the one that would be expected."""
    troubles = []
    if found[0].name not in (runs.LAST_FILE, asked_for):
        troubles.append(f"{found[0].with_name(runs.LAST_FILE)}: is missing")
    for path in found:
        try:
            checkpoint = load_checkpoint(path)
        except DamagedCheckpointError as damage:
            troubles.append(str(damage))
            continue
        if troubles:
            _tell_what_is_lost(run, path, checkpoint, troubles)
        return path, checkpoint
    raise DamagedCheckpointError("\n".join([*troubles, f"No checkpoint of {run} is whole"]))


def _tell_what_is_lost(run: Path, path: Path, checkpoint: Checkpoint, troubles: list[str]) -> None:
    reached = last_iteration(run / runs.RESULTS_FILE)
    logged = "" if reached is None else f" of {max(reached, checkpoint.iteration)} that are logged"
    LOGGER.warning(
        "%s\nGOING ON FROM %s, after step %d%s; the steps since then are lost, and trained again",
        "\n".join(troubles),
        path,
        checkpoint.iteration,
        logged,
    )


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
