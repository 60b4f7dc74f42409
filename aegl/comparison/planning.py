"""Which runs a comparison consists of, and how far each is: decided before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from aegl.comparison.entries import VERB_KEYS, Entry
from aegl.config import Config, complete_parts, flatten, load_config
from aegl.config.fields import keys
from aegl.config.values import shown
from aegl.engine import runs
from aegl.errors import ConfigError

MAY_DIFFER = (*VERB_KEYS, "project", "name", "exist_ok", "resume", "device", "workers", "loggers")
"""Keys that name the run or the machine, not what is trained."""


class State(Enum):
    """How far a run is."""

    NEW = "new"
    INTERRUPTED = "interrupted"
    FINISHED = "finished"


@dataclass(frozen=True)
class PlannedRun:
    """A run of an entry with one seed.

    Args:
        entry: name of the entry.
        config: what is to be trained, where, and with which seed.
        folder: where the run lies or will lie.
        state: how far it is.
    """

    entry: str
    config: Config
    folder: Path
    state: State


def plan_runs(
    entries: Sequence[Entry], seeds: Sequence[int], given: Mapping[str, Any], folder: Path
) -> list[PlannedRun]:
    """Every run of a comparison, seed by seed, so that all entries have their first seed early.

    Args:
        entries: what is compared.
        seeds: one run each.
        given: keys that hold for all.
        folder: of the comparison; a run's folder is ``<entry>/seed<n>`` in it.

    Raises:
        ConfigError: if an entry's configuration is wrong, or a run that is there already was started with another;
            every such entry and run is named.
    """
    configs = _configurations(entries, given)
    planned, refused = [], []
    for seed in seeds:
        for entry in entries:
            where = {"project": str(folder / entry.folder), "name": f"seed{seed}", "exist_ok": True, "seed": seed}
            config = configs[entry.name].model_copy(update=where)
            run = folder / entry.folder / f"seed{seed}"
            changed = differences(run, config) if (run / runs.ARGS_FILE).is_file() else []
            refused += [f"{run}: {line}" for line in changed]
            planned.append(PlannedRun(entry.name, config, run, state_of(run)))
    if refused:
        advice = "ask for what they were started with, or give another name=, or delete these runs"
        raise ConfigError("\n".join([*refused, f"runs of another configuration are not compared; {advice}"]))
    return planned


def differences(run: Path, wanted: Config) -> list[str]:
    """What a run was started with, where another value is wanted; one line a key."""
    saved = flatten(complete_parts(load_config({"cfg": str(run / runs.ARGS_FILE)})))
    asked = flatten(complete_parts(wanted))
    return [
        f"{key}={shown(saved.get(key))} in this run, {shown(asked.get(key))} asked for"
        for key in sorted({*saved, *asked} - {*MAY_DIFFER})
        if saved.get(key) != asked.get(key)
    ]


def _configurations(entries: Sequence[Entry], given: Mapping[str, Any]) -> dict[str, Config]:
    neutral = {key: keys()[key].default for key in VERB_KEYS}
    found: dict[str, Config] = {}
    wrong: dict[str, list[str]] = {}
    for entry in entries:
        try:
            found[entry.name] = load_config({**given, **entry.keys, **neutral})
        except ConfigError as error:
            for line in str(error).splitlines():
                wrong.setdefault(line, []).append(entry.name)
        else:
            if found[entry.name].data is None:
                wrong.setdefault("data: not given; name the data that all entries are trained on", []).append(
                    entry.name
                )
    if wrong:
        everywhere = len(entries)
        lines = [line if len(names) == everywhere else f"{', '.join(names)}: {line}" for line, names in wrong.items()]
        raise ConfigError("\n".join(lines))
    return found


def state_of(run: Path) -> State:
    """How far the run in a folder is."""
    if not (run / runs.ARGS_FILE).is_file():
        return State.NEW
    if (run / runs.TRAINED_FILE).is_file():
        return State.FINISHED
    return State.INTERRUPTED if (run / runs.WEIGHTS_FOLDER / "last.pt").is_file() else State.NEW
