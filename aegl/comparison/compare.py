"""The comparison from request to report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aegl.comparison.entries import VERB_KEYS, entries_of
from aegl.comparison.finished import outcomes_of
from aegl.comparison.outcomes import Outcome, finish
from aegl.comparison.planning import PlannedRun, State, plan_runs
from aegl.comparison.report import as_csv, markdown, summarize
from aegl.config import Config, load_config
from aegl.config.values import read_mapping
from aegl.engine import runs
from aegl.engine.distributed import World, join_world
from aegl.engine.fitness import fitness
from aegl.errors import ConfigError
from aegl.progress import Progress

VERB = "compare"
MARKDOWN_FILE = "compare.md"
CSV_FILE = "compare.csv"
_OF_THE_REQUEST = (*VERB_KEYS, "seed", "project", "name", "exist_ok", "resume", "device")


def compare(overrides: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Train what is not trained yet, collect everything, and write ``compare.md`` and ``compare.csv``.

    A run that fails is reported and the others go on. The same request made again goes on where it stopped.

    Args:
        overrides: ``methods``, ``recipes`` or ``entries`` and the keys that hold for all entries; or ``runs``, finished
            run folders to collect.
        progress: told of every run.

    Returns:
        :func:`aegl.comparison.report.summarize`, with ``failed`` empty if all is well; ``folder``, ``report``, ``csv``.

    Raises:
        ConfigError: for a request that cannot be met; nothing has been trained then.
        StoppedError: if a signal stopped a run.
    """
    request = _request(overrides)
    if request.resume:
        raise ConfigError("resume=true: compare goes on by itself where it stopped; leave it out")
    given = {key: value for key, value in overrides.items() if key not in (*VERB_KEYS, "seed")}
    if request.runs is not None:
        outcomes = outcomes_of(request, given)
        summarize(outcomes)  # refuses what cannot be compared, before a folder is made
        folder = runs.create_run(request.project, request.name, verb=VERB, exist_ok=request.exist_ok)
        return _report(outcomes, folder)
    folder = Path(request.project) / (request.name or VERB)
    seeds = range(request.seed, request.seed + request.seeds)
    planned = plan_runs(entries_of(request, given), seeds, given, folder)
    with join_world(request.device) as world:
        world.barrier()  # what is planned must not depend on how far the main process is already
        outcomes = _finish_all(planned, folder, progress, world)
    return _report(outcomes, folder, write=world.is_main)


def _request(overrides: Mapping[str, Any]) -> Config:
    """What is asked of the comparison, as against of its runs."""
    path = overrides.get("cfg")
    content = {} if path is None else read_mapping(Path(str(path)), f"cfg={path}")
    asked = {key: value for key, value in {**content, **overrides}.items() if key in _OF_THE_REQUEST}
    return load_config(asked)


def _finish_all(planned: Sequence[PlannedRun], folder: Path, progress: Progress, world: World) -> list[Outcome]:
    finished = sum(run.state is State.FINISHED for run in planned)
    if finished and world.is_main:
        progress.message(f"{finished} of {len(planned)} runs are finished already and are collected")
    outcomes: list[Outcome] = []
    for number, run in enumerate(planned, start=1):
        what = f"run {number} of {len(planned)}, {run.entry}, seed {run.config.seed}"
        if world.is_main and run.state is not State.FINISHED:
            going_on = ", goes on" if run.state is State.INTERRUPTED else ""
            progress.message(f"{what}{going_on}: {run.folder}")
        outcome = finish(run, progress, world)
        outcomes.append(outcome)
        if world.is_main:
            progress.message(f"{what}: {_in_words(outcome)}")
            if run.state is not State.FINISHED:
                _report(outcomes, folder)
    return outcomes


def _in_words(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"failed: {outcome.error}"
    metrics = outcome.result["metrics"]
    return f"{'mask' if metrics.get('mask') else 'box'} AP {100 * fitness(metrics):.1f}"


def _report(outcomes: Sequence[Outcome], folder: Path, *, write: bool = True) -> dict[str, Any]:
    summary = summarize(outcomes)
    files = {"report": folder / MARKDOWN_FILE, "csv": folder / CSV_FILE}
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        runs.write_text(files["report"], markdown(summary))
        runs.write_text(files["csv"], as_csv(summary))
    return {"folder": str(folder), **{key: str(path) for key, path in files.items()}, **summary}
