"""Help is quick, and says nothing that is not so."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from typing import Any

import pytest

from aegl.config.fields import keys
from aegl.config.verbs import OF_VERB
from aegl_cli.main import VERBS

IMPORTED = """
import sys
from aegl_cli.main import cli
try:
    cli({words})
finally:
    print(*sys.modules, sep=",", file=sys.stderr)
"""


def test_help_comes_at_once() -> None:
    """Far below the time that importing torch takes; with room for a busy machine."""

    def seconds() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "aegl_cli", "--help"], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) < 1.5


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["methods", "--help"]])
def test_nothing_heavy_is_imported_to_help(words: list[str]) -> None:
    code = IMPORTED.format(words=words)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"torch", "timm", "numpy", "onnxruntime"} & set(done.stderr.strip().split(","))


def test_every_verb_is_listed(aegl: Any) -> None:
    lines = aegl("--help").stdout.splitlines()
    assert all(any(line.split()[:1] == [verb] for line in lines) for verb in VERBS)
    assert OF_VERB.keys() == VERBS.keys()


@pytest.mark.parametrize("verb", VERBS)
def test_only_keys_that_exist_are_mentioned(aegl: Any, verb: str) -> None:
    text = aegl(verb, "--help").stdout
    assert text.startswith(f"Usage: aegl {verb}")
    listed = re.findall(r"^  ([a-z0-9_.<>]+)  ", text, re.MULTILINE)
    assert set(listed) - {"loss.<option>"} <= keys().keys()
    groups = {name.partition(".")[0] for name in listed}
    assert groups == {name.partition(".")[0] for name in OF_VERB[verb]}  # none of the table is left out
    named = re.findall(r"\b([a-z0-9_]+(?:\.[a-z0-9_]+)?)=", text)
    assert set(named) <= {*keys(), "key"}
