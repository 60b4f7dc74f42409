"""A search trains each trial once, goes on where it stopped, shares its trials, and writes down the best."""

from __future__ import annotations

import csv
import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")
pytest.importorskip("filelock")

from aegl import tasks
from aegl.config import Config, load_config
from aegl.engine.signals import StoppedError
from aegl.errors import ConfigError, RunError
from aegl.progress import SilentProgress

QUIET = SilentProgress()


def test_the_best_trial_is_found_and_can_be_trained_again(trainer: Any, asked: dict[str, Any]) -> None:
    result = tasks.tune(asked, QUIET)
    assert len(trainer.asked) == len(result["trials"]) == 3
    values = [trial["value"] for trial in result["trials"] if trial["state"] == "complete"]
    assert values == sorted(values, reverse=True)
    best = result["best_trial"]
    assert best == result["trials"][0]
    assert best["value"] == pytest.approx(100 * (0.5 - abs(best["keys"]["lr"] - 0.01)), abs=1e-3)
    config = load_config({"cfg": result["best"]})
    assert (config.lr, config.model, config.iterations) == (best["keys"]["lr"], "mini", 8)
    assert (config.project, config.name) == ("runs", None)
    json.dumps(result, allow_nan=False)
    with Path(result["csv"]).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [trial["trial"] for trial in result["trials"]]
    assert f"| {best['trial']} | complete |" in Path(result["report"]).read_text()


def test_the_same_request_does_not_train_twice_and_more_trials_are_added(trainer: Any, asked: dict[str, Any]) -> None:
    first = tasks.tune(asked, QUIET)
    assert tasks.tune(asked, QUIET) == first
    assert len(trainer.asked) == 3
    more = tasks.tune({**asked, "trials": 5}, QUIET)
    assert len(trainer.asked) == len(more["trials"]) == 5


def test_proposals_depend_on_the_seed_and_not_on_where_the_search_was_stopped(
    trainer: Any, asked: dict[str, Any]
) -> None:
    whole = tasks.tune({**asked, "name": "whole", "trials": 4}, QUIET)
    for trials in (1, 2, 4):
        parts = tasks.tune({**asked, "name": "parts", "trials": trials}, QUIET)
    other = tasks.tune({**asked, "name": "other", "trials": 4, "seed": 1}, QUIET)
    keys = [sorted(trial["keys"]["lr"] for trial in result["trials"]) for result in (whole, parts, other)]
    assert keys[0] == keys[1] != keys[2]
    assert len(set(keys[0])) == 4


def test_an_interrupted_trial_is_resumed_with_its_values(trainer: Any, asked: dict[str, Any]) -> None:
    def stop(config: Config) -> None:
        if len(trainer.asked) == 2:
            raise StoppedError("stopped by SIGTERM", signal.SIGTERM)

    trainer.before = stop
    with pytest.raises(StoppedError):
        tasks.tune(asked, QUIET)
    result = tasks.tune(asked, QUIET)
    assert [config.name for config in trainer.asked] == ["trial0", "trial1", "trial1", "trial2"]
    assert [config.resume for config in trainer.asked] == [False, False, True, False]
    assert trainer.asked[1].lr == trainer.asked[2].lr
    assert len(result["trials"]) == 3 and not result["failed"]


def test_a_trial_that_was_trained_but_not_told_is_collected(
    trainer: Any, asked: dict[str, Any], tmp_path: Path
) -> None:
    def kill(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aegl.tuning.study.SharedStudy.tell", kill)
        with pytest.raises(KeyboardInterrupt):
            tasks.tune({**asked, "trials": 1}, QUIET)
    result = tasks.tune({**asked, "trials": 1}, QUIET)
    assert len(trainer.asked) == 1
    assert [trial["state"] for trial in result["trials"]] == ["complete"]


def test_a_trial_that_fails_is_listed_and_the_others_go_on(trainer: Any, asked: dict[str, Any]) -> None:
    def fail(config: Config) -> None:
        if config.name == "trial0":
            raise RunError("the loss is not finite")
        if config.name == "trial1":
            raise MemoryError("no memory")

    trainer.before = fail
    result = tasks.tune(asked, QUIET)
    assert len(trainer.asked) == 3
    errors = {trial["trial"]: trial["error"] for trial in result["failed"]}
    assert errors["trial0"] == "the loss is not finite"
    assert errors["trial1"].startswith("MemoryError: no memory (see ")
    assert result["best_trial"]["trial"] == "trial2"
    assert "- trial0: the loss is not finite" in Path(result["report"]).read_text()


def test_nothing_complete_gives_no_best(trainer: Any, asked: dict[str, Any], tmp_path: Path) -> None:
    def fail(config: Config) -> None:
        raise RunError("broken")

    trainer.before = fail
    result = tasks.tune(asked, QUIET)
    assert result["best"] is None and result["best_trial"] is None
    assert not (tmp_path / "tune" / "best.yaml").exists()


def test_bad_trials_are_ended_early_and_told_as_pruned(trainer: Any, asked: dict[str, Any]) -> None:
    result = tasks.tune({**asked, "trials": 10}, QUIET)
    pruned = [trial for trial in result["trials"] if trial["state"] == "pruned"]
    assert pruned and all(trial["iterations"] < 8 for trial in pruned)
    assert len(pruned) < 8
    unpruned = tasks.tune({**asked, "trials": 10, "prune": False, "name": "x"}, QUIET)
    assert {trial["state"] for trial in unpruned["trials"]} == {"complete"}


def test_another_objective_decides(trainer: Any, asked: dict[str, Any]) -> None:
    result = tasks.tune({**asked, "objective": "APr", "prune": False}, QUIET)
    best = result["best_trial"]
    assert best["value"] == max(trial["value"] for trial in result["trials"])
    assert best["value"] == pytest.approx(100 - best["figures"]["mask/AP"], abs=1e-3)
    none = tasks.tune({**asked, "objective": "APx", "name": "x"}, QUIET)
    assert none["failed"][0]["error"] == "the evaluation has no figure APx"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space.lr": "0.001..0.2:log"}, r"space.lr=0.001..0.2:log: this search was begun with 0.001..0.4:log"),
        ({"iterations": 9}, "iterations=9: this search was begun with 8"),
        ({"objective": "APr"}, "objective=APr: this search was begun with fitness"),
        ({"loss.mu": 0.3}, "loss.mu=0.3: this search was begun with"),
        ({"resume": True}, "tune goes on by itself"),
        ({"data": None}, "data: not given"),
        ({"lerning": 1}, "lerning: unknown key"),
    ],
)
def test_another_request_in_the_same_folder_is_refused(
    trainer: Any, asked: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    tasks.tune({**asked, "trials": 1}, QUIET)
    with pytest.raises(ConfigError, match=message):
        tasks.tune({**asked, **change}, QUIET)
    assert len(trainer.asked) == 1


def test_without_its_packages_it_says_what_to_install(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tune: needs optuna, filelock; pip install 'aegl\[tune\]'"):
        tasks.tune(asked, QUIET)


def test_processes_share_the_trials(trainer: Any, asked: dict[str, Any], tmp_path: Path) -> None:
    import time

    trainer.before = lambda config: time.sleep(0.2)

    def work(number: int) -> None:
        tasks.tune({**asked, "trials": 6}, QUIET)
        (tmp_path / f"names{number}").write_text(" ".join(str(config.name) for config in trainer.asked))

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    names = [(tmp_path / f"names{number}").read_text().split() for number in range(2)]
    assert sorted(names[0] + names[1]) == [f"trial{number}" for number in range(6)]
    assert all(names)
