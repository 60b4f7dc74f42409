"""The study behind a search: Optuna's, kept in a file of the search's folder that several processes share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from aegl.tuning.space import Choice, Range, Space

JOURNAL_FILE = "study.journal"
RUN = "run"
"""Attribute of a trial: name of the folder of its run."""
ERROR = "error"
_LOCKS = "locks"
_BEGUN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)


@dataclass(frozen=True)
class Record:
    """A trial as it stands.

    Args:
        run: name of its run's folder.
        state: ``complete``, ``pruned``, ``failed`` or ``running``.
        value: of the objective; of a pruned one the last.
        keys: what was tried.
        error: why it failed.
    """

    run: str
    state: str
    value: float | None
    keys: dict[str, Any]
    error: str | None


class SharedStudy:
    """Trials of one search, over all processes that work on it, now and before.

    A trial whose process died is begun anew by the next one that asks: with the same values and in the same run
    folder, where training goes on. Which process is alive is told by locks that end with it.

    Args:
        folder: of the search.
        space: what is searched.
        trials: how many there are to be.
        seed: of the proposals; they depend on it and on the trials before, not on the process.
        startup_trials: drawn at random, and needed before any is ended early.
    """

    def __init__(self, folder: Path, space: Space, *, trials: int, seed: int, startup_trials: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._folder = folder
        self._distributions = {name: _distribution(allowed) for name, allowed in space.items()}
        self._trials = trials
        self._seed = seed
        self._startup = startup_trials
        (folder / _LOCKS).mkdir(exist_ok=True)
        self._lock = FileLock(folder / _LOCKS / "study.lock")
        with self._lock:
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL_FILE))),
                study_name="tune",
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=startup_trials),
            )

    @contextmanager
    def next(self) -> Iterator[optuna.Trial | None]:
        """A trial to train, this process's until the context ends; None when there are enough."""
        with self._lock:
            self._give_back_abandoned()
            trial = self._ask()
            lock = None if trial is None else self._lock_of(trial.user_attrs[RUN])
            if lock is not None:
                lock.acquire()
        try:
            yield trial
        finally:
            if lock is not None:
                lock.release()

    def tell(self, trial: optuna.Trial, value: float, *, pruned: bool) -> None:
        """A trial is over."""
        if not pruned:
            self._study.tell(trial, value)
            return
        if not self._study.trials[trial.number].intermediate_values:  # found finished: nothing was reported
            trial.report(value, 0)
        self._study.tell(trial, state=TrialState.PRUNED)

    def tell_failed(self, trial: optuna.Trial, error: str) -> None:
        """A trial gave nothing."""
        trial.set_user_attr(ERROR, error)
        self._study.tell(trial, state=TrialState.FAIL)

    def records(self) -> list[Record]:
        """Every trial that was begun, in the order of its run."""
        found: dict[str, Record] = {}
        for trial in self._begun():
            run = trial.user_attrs[RUN]
            state = "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
            found[run] = Record(run, state, trial.value, dict(trial.params), trial.user_attrs.get(ERROR))
        return sorted(found.values(), key=lambda record: int(record.run.removeprefix("trial")))

    def _ask(self) -> optuna.Trial | None:
        runs = {trial.user_attrs[RUN] for trial in self._begun()}
        waiting = self._study.get_trials(states=(TrialState.WAITING,))
        if not waiting and len(runs) >= self._trials:
            return None
        self._study.sampler = optuna.samplers.TPESampler(
            seed=self._seed + len(self._study.trials), n_startup_trials=self._startup, constant_liar=True
        )
        trial = self._study.ask(self._distributions)
        if RUN not in trial.user_attrs:
            trial.set_user_attr(RUN, f"trial{len(runs)}")
        return trial

    def _give_back_abandoned(self) -> None:
        """Trials of processes that are no more wait for the next one that asks."""
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            run = trial.user_attrs.get(RUN)
            if run is not None and not self._is_free(run):
                continue
            self._study.tell(trial.number, state=TrialState.FAIL)
            if run is not None:
                self._study.enqueue_trial(trial.params, user_attrs={RUN: run})

    def _begun(self) -> list[optuna.trial.FrozenTrial]:
        return [trial for trial in self._study.get_trials(states=_BEGUN) if RUN in trial.user_attrs]

    def _is_free(self, run: str) -> bool:
        lock = self._lock_of(run)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        lock.release()
        return True

    def _lock_of(self, run: str) -> FileLock:
        return FileLock(self._folder / _LOCKS / f"{run}.lock")


def _distribution(allowed: Range | Choice) -> optuna.distributions.BaseDistribution:
    if isinstance(allowed, Choice):
        return optuna.distributions.CategoricalDistribution(list(allowed.values))
    if allowed.whole:
        step = int(allowed.step or 1)
        return optuna.distributions.IntDistribution(int(allowed.low), int(allowed.high), log=allowed.log, step=step)
    return optuna.distributions.FloatDistribution(allowed.low, allowed.high, log=allowed.log, step=allowed.step)
