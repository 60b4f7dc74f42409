"""Where a run begins: anew, or where it stopped. The main process finds out; no other needs to see the run's folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aegl.config import Config
from aegl.engine import runs
from aegl.engine.checkpoint import Checkpoint
from aegl.engine.distributed import World
from aegl.engine.nodes import send_checkpoint
from aegl.engine.resume import begun, open_run, refuse_changes, run_to_resume
from aegl.engine.stages import BEFORE
from aegl.errors import ConfigError

LOGGER = logging.getLogger("aegl")


@dataclass(frozen=True)
class Beginning:
    """How a run begins.

    Args:
        config: its configuration: that of its folder where it goes on.
        run: its folder, None for a new run.
        checkpoint: its state, None for a new run and for one that was stopped in the stage before its own.
        finished: the content of ``train.json`` where `resume=auto` finds nothing left to do.
    """

    config: Config
    run: Path | None = None
    checkpoint: Checkpoint | None = None
    finished: Mapping[str, Any] | None = None


def find_beginning(config: Config, world: World, asked: Mapping[str, Any]) -> Beginning:
    """Whether the run that is asked for goes on, and from what, on every process. Collective.

    Args:
        config: the configuration asked for.
        world: the processes.
        asked: the keys given in so many words: what goes on must have been started with them.

    Raises:
        AeglError: on every process, what the main one finds wrong.
    """
    loaded: list[Checkpoint] = []

    def decide() -> str:
        run = _run_that_goes_on(config)
        if run is None:
            begun_before = config.resume == "auto" and (run_to_resume(config) / runs.ARGS_FILE).is_file()
            exist_ok = config.exist_ok or begun_before
            runs.check_free(config.project, config.name, exist_ok=exist_ok)
            return json.dumps({"config": config.model_copy(update={"exist_ok": exist_ok}).model_dump(mode="json")})
        refuse_changes(run, asked)
        record = run / runs.TRAINED_FILE
        if config.resume == "auto" and record.is_file():
            LOGGER.info("%s: all its steps are done", run)
            return json.dumps({"config": config.model_dump(mode="json"), "finished": json.loads(record.read_text())})
        found = open_run(run, config)
        if found.checkpoint:
            loaded.append(found.checkpoint)
        file = "" if found.file is None else str(found.file)
        return json.dumps({"config": found.config.model_dump(mode="json"), "run": str(run), "file": file})

    answer = json.loads(world.from_main(decide))
    if config.resume == "auto" and not answer.get("run") and not answer.get("finished"):
        _require_no_run_elsewhere(config, world)
    checkpoint = None
    if answer.get("file"):
        checkpoint = send_checkpoint(loaded[0] if loaded else None, Path(answer["file"]), world)
    run = Path(answer["run"]) if "run" in answer else None
    return Beginning(Config.model_validate(answer["config"]), run, checkpoint, answer.get("finished"))


def _require_no_run_elsewhere(config: Config, world: World) -> None:
    """A run must not start anew because the main process has moved away from the machine that its files are on."""
    here = _run_that_goes_on(config) is not None
    holders = [rank for rank, holds in enumerate(world.gather(torch.tensor(int(here)))) if holds]
    if holders:
        raise ConfigError(
            f"resume=auto: {run_to_resume(config)} has begun on the machine of process {holders[0]}, and that of the "
            "main process does not have it; give project= a folder that all share, or copy the run's folder there"
        )


def _run_that_goes_on(config: Config) -> Path | None:
    if not config.resume:
        return None
    run = run_to_resume(config)
    if config.resume == "auto" and not (begun(run) or begun(run / BEFORE)):
        return None
    return run
