"""The suite of GPU measurements: sections cannot harm each other, what is missing is named, it is ready to be run."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

WRITES = """
import json, pathlib, sys, time
path = pathlib.Path(sys.argv[sys.argv.index("--json") + 1])
row = {"setting": "a | b", "figures": {"images_per_s": 12.5, "gib": None}}
path.write_text(json.dumps({"rows": [row], "missing": [{"setting": "c", "reason": "no such kernel"}]}))
"""
FAILS = WRITES + "raise RuntimeError('broken on purpose')"
HANGS = WRITES + "import subprocess; subprocess.Popen(['sleep', '600']); time.sleep(600)"
PRINTS = "print('some words\\n\\n| loss | ms | x BCE |\\n| --- | ---: | ---: |\\n| fbs_aegl | 1.25 | 1.03 |')"


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu_suite

    return gpu_suite


def run(suite: ModuleType, folder: Path, code: str, *, limit: float = 30.0, prints_table: bool = False) -> object:
    script = folder / "script.py"
    script.write_text(code)
    part = suite.Part("part", (str(script),), 60, prints_table=prints_table)
    return suite.run_part(part, "cpu", folder, limit, smoke=True)


def test_rows_and_gaps_of_a_section_are_read(suite: ModuleType, tmp_path: Path) -> None:
    result = run(suite, tmp_path, WRITES)
    text = suite.table([result])
    assert "| part | a / b | images per s 12.5 |" in text
    assert "- part, c: no such kernel" in text


def test_a_section_that_fails_keeps_its_rows_and_says_why(suite: ModuleType, tmp_path: Path) -> None:
    result = run(suite, tmp_path, FAILS)
    assert len(result.rows) == 1
    assert result.missing[-1]["reason"] == "exit code 1: RuntimeError: broken on purpose"


def test_a_section_that_hangs_is_ended_with_its_workers(suite: ModuleType, tmp_path: Path) -> None:
    result = run(suite, tmp_path, HANGS, limit=2.0)
    assert result.seconds < 20
    assert len(result.rows) == 1
    assert "its limit of 2 s" in result.missing[-1]["reason"]


def test_tables_of_other_scripts_are_read(suite: ModuleType, tmp_path: Path) -> None:
    result = run(suite, tmp_path, PRINTS, prints_table=True)
    assert result.rows == [{"setting": "fbs_aegl", "figures": {"ms": "1.25", "x BCE": "1.03"}}]


def test_rows_of_an_earlier_run_are_not_taken_for_new_ones(suite: ModuleType, tmp_path: Path) -> None:
    run(suite, tmp_path, WRITES)
    assert run(suite, tmp_path, "raise SystemExit(3)").rows == []


def test_every_section_is_there_and_the_limits_are_those_of_ten_minutes(suite: ModuleType) -> None:
    assert all((BENCHMARKS / part.script[0]).is_file() for part in suite.PARTS)
    names = [part.name for part in suite.PARTS]
    assert suite.chosen(",".join(names)) == suite.chosen(None) == list(suite.PARTS)
    with pytest.raises(SystemExit, match="--only nothing: no such section; there are training"):
        suite.chosen("nothing")


@pytest.mark.slow
def test_the_script_measures_something_on_a_cpu(tmp_path: Path) -> None:
    """Its shortest section, through the shell script that a GPU machine runs."""
    chosen = {"PYTHON": sys.executable, "DEVICE": "cpu", "OUT": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [str(BENCHMARKS / "gpu_suite.sh"), "--smoke", "--only", "kernels"]
    done = subprocess.run(command, env={**os.environ, **chosen}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.md").read_text()
    assert "roi_align 512 regions 7x7, float32, forward and backward" in table
    assert table.splitlines()[-1] == "- nothing is missing"


@pytest.mark.slow
def test_without_the_device_nothing_is_begun(tmp_path: Path, suite: ModuleType) -> None:
    with pytest.raises(SystemExit, match="device=nothing: "):
        suite.machine("nothing")
