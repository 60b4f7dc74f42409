"""What a run gave: read from its folder, after training it where that is still to be done."""

from __future__ import annotations

import json
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aegl.comparison.planning import PlannedRun, State
from aegl.config import Config, load_config
from aegl.engine import runs
from aegl.engine.callbacks import Callback
from aegl.engine.distributed import World
from aegl.engine.signals import StoppedError
from aegl.errors import AeglError, CheckpointError
from aegl.progress import Progress

ERROR_FILE = "error.txt"
"""Where the traceback of a run lies that ended by an error which is none of aegl's."""


@dataclass(frozen=True)
class Outcome:
    """A run that is over.

    Args:
        entry: name of the entry.
        config: what was trained.
        folder: of the run.
        result: content of its ``train.json``; None where it failed.
        error: why it failed, None where it did not.
    """

    entry: str
    config: Config
    folder: Path
    result: Mapping[str, Any] | None
    error: str | None = None


def collect(folder: Path, entry: str) -> Outcome:
    """The outcome of a finished run.

    Raises:
        CheckpointError: if it is no run, or is not finished, or was trained without an evaluation.
    """
    if not (folder / runs.ARGS_FILE).is_file():
        raise CheckpointError(f"{folder}: is no run, it holds no {runs.ARGS_FILE}")
    try:
        content = json.loads((folder / runs.TRAINED_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: is not finished (it holds no {runs.TRAINED_FILE}); go on with `aegl train resume=true "
            f"weights={folder / runs.WEIGHTS_FOLDER / 'last.pt'}`"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / runs.TRAINED_FILE}: cannot be read ({error})") from error
    if not (isinstance(content, dict) and content.get("metrics")):
        raise CheckpointError(f"{folder / runs.TRAINED_FILE}: holds no metrics, so there is nothing to compare")
    return Outcome(entry, load_config({"cfg": str(folder / runs.ARGS_FILE)}), folder, content)


def finish(run: PlannedRun, progress: Progress, world: World, callbacks: tuple[Callback, ...] = ()) -> Outcome:
    """Train a run, or the rest of it, unless it is finished, and collect it.

    Args:
        run: the run.
        progress: shown while it trains.
        world: the processes. Where there are several, an error ends the comparison: they have lost each other, and no
            further run could start.
        callbacks: told of what happens while it trains.

    Raises:
        StoppedError: if a signal stopped it.
        AeglError: any other, of several processes only.
    """
    try:
        if run.state is not State.FINISHED:
            _train(run, progress, callbacks)
            world.barrier()
        return collect(run.folder, run.entry)
    except StoppedError as error:
        raise StoppedError(f"{error}, or the whole comparison by the same command", _signal_of(error)) from error
    except AeglError as error:
        if world.size > 1:
            raise
        return Outcome(run.entry, run.config, run.folder, None, str(error))
    except Exception as error:  # whatever a library raises (no memory left, say): the other runs are not to be lost
        if world.size > 1:
            raise
        file = run.folder / ERROR_FILE
        if run.folder.is_dir():
            runs.write_text(file, traceback.format_exc())
        first_line = next(iter(str(error).splitlines()), "")
        return Outcome(run.entry, run.config, run.folder, None, f"{type(error).__name__}: {first_line} (see {file})")


def _train(run: PlannedRun, progress: Progress, callbacks: tuple[Callback, ...]) -> None:
    from aegl.engine import build

    config = run.config
    if run.state is State.INTERRUPTED:
        # weights= is where the run started from; a run that goes on is named by its folder.
        config = config.model_copy(update={"resume": True, "weights": None})
    build.train(config, progress, callbacks)
    (run.folder / ERROR_FILE).unlink(missing_ok=True)


def _signal_of(error: StoppedError) -> signal.Signals:
    return signal.Signals(error.exit_code - 128)
