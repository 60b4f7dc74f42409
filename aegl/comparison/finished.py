"""Finished runs, whoever trained them, as the entries of a comparison: runs that differ in their seed alone are one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aegl.comparison.outcomes import Outcome, collect
from aegl.comparison.planning import MAY_DIFFER
from aegl.config import Config, flatten, resolve
from aegl.config.load import ARGUMENTS
from aegl.config.values import shown
from aegl.engine import runs
from aegl.errors import ConfigError

_Key = tuple[tuple[str, str], ...]


def outcomes_of(request: Config, given: Mapping[str, Any]) -> list[Outcome]:
    """The runs of ``runs=`` as entries, named by their recipe or method and by what tells those apart.

    Args:
        request: with ``runs``.
        given: keys that every run must have been started with.

    Raises:
        CheckpointError: if a folder holds no finished run.
        ConfigError: if entries are asked for too, a run was started with another value of a given key, or two runs of
            one entry share their seed.
    """
    for key in ("methods", "recipes", "entries"):
        if getattr(request, key) is not None:
            raise ConfigError(f"{key}, runs: runs= collects what is trained already; give one of the two")
    found = [collect(Path(folder), "") for folder in request.runs or ()]
    problems = [line for outcome in found for line in _contradictions(outcome.folder, given)]
    if problems:
        raise ConfigError("\n".join(problems))
    groups: dict[_Key, list[Outcome]] = {}
    for outcome in found:
        groups.setdefault(_without_seed(outcome.config), []).append(outcome)
    for group in groups.values():
        _refuse_twice(group)
    names = _names([group[0].config for group in groups.values()])
    return [replace(o, entry=name) for name, group in zip(names, groups.values(), strict=True) for o in group]


def _contradictions(folder: Path, given: Mapping[str, Any]) -> list[str]:
    asked = {key: value for key, value in given.items() if key not in MAY_DIFFER}
    args = {"cfg": str(folder / runs.ARGS_FILE)}
    wanted, saved = resolve({**asked, **args}), flatten(resolve(args).config)
    return [
        f"{key}={shown(value)}: {folder} was trained with {shown(saved.get(key))}"
        for key, value in flatten(wanted.config).items()
        if wanted.origins[key] == ARGUMENTS and saved.get(key) != value
    ]


def _without_seed(config: Config) -> _Key:
    return tuple((key, repr(value)) for key, value in flatten(config).items() if key not in (*MAY_DIFFER, "seed"))


def _refuse_twice(group: list[Outcome]) -> None:
    seeds: dict[int, Path] = {}
    for outcome in group:
        other = seeds.setdefault(outcome.config.seed, outcome.folder)
        if other is not outcome.folder:
            raise ConfigError(
                f"{other}, {outcome.folder}: were trained with the same configuration and seed, so they are one run "
                "twice; leave one of them out"
            )


def _names(configs: list[Config]) -> list[str]:
    """Recipe or method; where several have the same, with the keys in which these differ."""
    chosen = [config.recipe or config.method for config in configs]
    names = []
    for config, name in zip(configs, chosen, strict=True):
        alike = [flatten(other) for other, theirs in zip(configs, chosen, strict=True) if theirs == name]
        own = flatten(config)
        differing = [
            key
            for key, value in own.items()
            if key not in (*MAY_DIFFER, "seed") and any(other.get(key) != value for other in alike)
        ]
        names.append("+".join([name, *(f"{key}={shown(own[key])}" for key in differing)]))
    return names
