"""`--quiet`: warnings, errors and the result, and nothing else."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from aegl_cli.keyvalue import FLAGS
from aegl_cli.main import VERBS


@pytest.fixture(autouse=True)
def _task(monkeypatch: pytest.MonkeyPatch) -> None:
    """`aegl report` with a task that says something in every way."""

    def task(overrides: dict[str, str], progress: Any) -> dict[str, Any]:
        progress.start("work", 1, "step")
        progress.update(1, loss=1.0)
        progress.message("half")
        progress.figures("step 1", {"box": {"AP": 0.5}}, {})
        progress.finish()
        logging.getLogger("aegl").info("by the way")
        logging.getLogger("aegl").warning("mind %s", overrides["runs"])
        print("loading...")  # noqa: T201
        return {"report": "report.html"}

    monkeypatch.setattr("aegl.tasks.report", task)


def test_only_warnings_and_the_result_are_left(aegl: Any) -> None:
    loud, quiet = aegl("report", "x"), aegl("report", "--quiet", "x")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "report.html\n", "warning: mind x\n")
    assert loud.stdout == quiet.stdout
    assert loud.stderr.splitlines() == [
        "half",
        "step 1: box AP 50.0",
        "work 1/1 steps  loss 1",
        "by the way",
        "warning: mind x",
        "loading...",
    ]


def test_with_json(aegl: Any) -> None:
    result = aegl("report", "x", "--json", "--quiet")
    assert json.loads(result.stdout) == {"report": "report.html"}
    assert result.stderr == "warning: mind x\n"


def test_errors_are_told(aegl: Any) -> None:
    result = aegl("cfg", "--quiet", "lr=-1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("aegl: error: lr=-1")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_tells_of_its_flags(aegl: Any, verb: str) -> None:
    text = aegl(verb, "--help").stdout
    assert all(f"  {flag} " in text for flag in FLAGS)
