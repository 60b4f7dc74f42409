"""The search from request to report."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aegl.comparison.outcomes import Outcome, finish
from aegl.comparison.planning import PlannedRun, state_of
from aegl.config import Config, complete_parts, load_config, resolve
from aegl.config.load import ARGUMENTS, nest
from aegl.config.values import read_mapping, shown
from aegl.engine import runs
from aegl.engine.distributed import World, join_world
from aegl.engine.fitness import figure, fitness
from aegl.engine.results_csv import evaluations
from aegl.engine.stages import has_stage_before
from aegl.errors import ConfigError
from aegl.progress import Progress
from aegl.tuning.pruning import PRUNED, Pruning
from aegl.tuning.report import as_csv, best_yaml, markdown, summarize
from aegl.tuning.space import PREFIX, VERB_KEYS, Space, as_texts, read_space

if TYPE_CHECKING:
    import optuna

    from aegl.tuning.study import SharedStudy

VERB = "tune"
REQUEST_FILE = "request.json"
BEST_FILE = "best.yaml"
_OF_THE_REQUEST = (*VERB_KEYS, "project", "name", "exist_ok", "resume", "device", "seed", "data")
_OF_THE_FOLDER = ("project", "name", "exist_ok", "resume")


@dataclass(frozen=True)
class _Search:
    request: Config
    given: Mapping[str, Any]
    space: Space
    folder: Path


def tune(overrides: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Train trials until there are ``trials`` of them, and write ``tune.md``, ``tune.csv`` and ``best.yaml``.

    A trial that fails is recorded and the others go on. The same request made again goes on where it stopped; made
    several times at once, the processes share the trials.

    Args:
        overrides: ``space`` or ``space.<key>``, ``trials``, ``objective``, and the keys of every trial.
        progress: told of every trial.

    Returns:
        :func:`aegl.tuning.report.summarize`, and ``folder``, ``report``, ``csv``, ``best`` (path of the configuration
        of the best trial; None without one).

    Raises:
        ConfigError: for a request that cannot be met; nothing has been trained then.
        StoppedError: if a signal stopped a trial.
    """
    search = _search(overrides)
    with join_world(search.request.device) as world:
        if world.size > 1:
            raise ConfigError(
                "tune: trains each trial in one process; start the same command once per GPU with device=cuda:<n>, "
                "without torchrun"
            )
        study = _study(search)
        while True:
            with study.next() as trial:
                if trial is None:
                    break
                _run(search, study, trial, progress, world)
            _write(search, study)
        return _write(search, study)


def _search(overrides: Mapping[str, Any]) -> _Search:
    missing = [name for name in ("optuna", "filelock") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"tune: needs {', '.join(missing)}; pip install 'aegl[tune]'")
    path = overrides.get("cfg")
    content = {} if path is None else read_mapping(Path(str(path)), f"cfg={path}")
    own = {key: value for key, value in overrides.items() if not key.startswith(PREFIX) and key != "space"}
    request = load_config({key: value for key, value in {**content, **own}.items() if key in _OF_THE_REQUEST})
    if request.resume:
        raise ConfigError("resume=true: tune goes on by itself where it stopped; leave it out")
    given = {key: value for key, value in own.items() if key not in (*VERB_KEYS, *_OF_THE_FOLDER)}
    if load_config(given).data is None:
        raise ConfigError("data: not given; name the data that all trials are trained on")
    space = read_space({**({"space": content["space"]} if "space" in content else {}), **overrides}, given)
    return _Search(request, given, space, Path(request.project) / (request.name or VERB))


def _study(search: _Search) -> SharedStudy:
    from aegl.tuning.study import SharedStudy

    request = search.request
    search.folder.mkdir(parents=True, exist_ok=True)
    _refuse_another(search)
    return SharedStudy(
        search.folder,
        search.space,
        trials=request.trials,
        seed=request.seed,
        startup_trials=request.startup_trials,
    )


def _refuse_another(search: _Search) -> None:
    """Trials of another space or configuration are not those of this search."""
    config = complete_parts(load_config(search.given)).model_dump(mode="json", exclude={"device", "workers", "loggers"})
    asked = {"space": as_texts(search.space), "objective": search.request.objective, "config": config}
    file = search.folder / REQUEST_FILE
    if not file.is_file():
        runs.write_text(file, json.dumps(asked, indent=1) + "\n")
        return
    begun = json.loads(file.read_text(encoding="utf-8"))
    both = {**_flat(begun), **_flat(asked)}
    changed = [key for key in both if _flat(begun).get(key) != _flat(asked).get(key)]
    if changed:
        lines = [
            f"{key}={shown(_flat(asked).get(key))}: this search was begun with {shown(_flat(begun).get(key))}"
            for key in changed
        ]
        raise ConfigError("\n".join([*lines, f"{search.folder}: holds another search; choose another name="]))


def _flat(asked: Mapping[str, Any]) -> dict[str, Any]:
    config = {
        f"{key}.{part}" if part else key: each
        for key, value in asked["config"].items()
        for part, each in (value.items() if isinstance(value, dict) else [("", value)])
    }
    return {**config, "objective": asked["objective"], **{f"{PREFIX}{k}": v for k, v in asked["space"].items()}}


def _run(search: _Search, study: SharedStudy, trial: optuna.Trial, progress: Progress, world: World) -> None:
    name = trial.user_attrs["run"]
    what = f"{name} of {search.request.trials}"
    progress.message(f"{what}: {', '.join(f'{key}={shown(value)}' for key, value in trial.params.items())}")
    try:
        config = load_config({**search.given, **trial.params})
    except ConfigError as error:  # values that fit alone but not together
        study.tell_failed(trial, str(error))
        progress.message(f"{what}: failed: {error}")
        return
    where = {"project": str(search.folder), "name": name, "exist_ok": True, "report": False}
    run = search.folder / name
    planned = PlannedRun(name, config.model_copy(update=where), run, state_of(run))
    outcome = finish(planned, progress, world, _callbacks(search, trial, config, run))
    value = _value(outcome, search.request.objective)
    if value is None:
        reason = outcome.error or f"the evaluation has no figure {search.request.objective}"
        study.tell_failed(trial, reason)
        progress.message(f"{what}: failed: {reason}")
        return
    pruned = outcome.result is not None and outcome.result.get("stopped") == PRUNED
    study.tell(trial, value, pruned=pruned)
    progress.message(f"{what}: {'pruned at ' if pruned else ''}{search.request.objective} {100 * value:.2f}")


def _callbacks(search: _Search, trial: optuna.Trial, config: Config, run: Path) -> tuple[Pruning, ...]:
    """Evaluations of a run with a stage before it are not those of one course of training."""
    if not search.request.prune or has_stage_before(config):
        return ()
    objective = search.request.objective
    known = [(step, figure(summary, objective)) for step, summary in evaluations(run / runs.RESULTS_FILE)]
    return (Pruning(trial, objective, earlier=[(step, value) for step, value in known if value is not None]),)


def _value(outcome: Outcome, objective: str) -> float | None:
    """The objective at the evaluation that gave ``best.pt``."""
    if outcome.result is None:
        return None
    summaries = [summary for _, summary in evaluations(outcome.folder / runs.RESULTS_FILE)]
    if not summaries:
        return figure(outcome.result["metrics"], objective)
    return figure(max(summaries, key=fitness), objective)


def _write(search: _Search, study: SharedStudy) -> dict[str, Any]:
    summary = summarize(study.records(), search.folder, search.request.objective, as_texts(search.space))
    folder = search.folder
    files = {"report": folder / "tune.md", "csv": folder / "tune.csv"}
    runs.write_text(files["report"], markdown(summary))
    runs.write_text(files["csv"], as_csv(summary))
    best = summary["best_trial"]
    if best is not None:
        runs.write_text(folder / BEST_FILE, best_yaml(_chosen(search, best["keys"]), best, search.request.objective))
    paths = {key: str(path) for key, path in files.items()}
    return {"folder": str(folder), **paths, "best": None if best is None else str(folder / BEST_FILE), **summary}


def _chosen(search: _Search, found: Mapping[str, Any]) -> dict[str, Any]:
    """What the user gave and what was found, nested: all that a run needs to be the best trial again."""
    resolved = resolve({**search.given, **found})
    own = (ARGUMENTS, str(search.given.get("cfg")))
    values = {**resolved.config.model_dump(mode="json")}
    flat = {
        f"{key}.{part}" if part else key: each
        for key, value in values.items()
        for part, each in (value.items() if isinstance(value, dict) else [("", value)])
    }
    return nest({key: flat[key] for key, origin in resolved.origins.items() if origin in own})
