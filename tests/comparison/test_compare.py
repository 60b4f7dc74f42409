"""A comparison trains each run once, goes on where it stopped, refuses what does not belong together, loses nothing."""

from __future__ import annotations

import csv
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from aegl import tasks
from aegl.engine.signals import StoppedError
from aegl.errors import AeglError, ConfigError, DataError, RunError
from aegl.progress import SilentProgress

QUIET = SilentProgress()
ALL = [("softmax_ce", 0), ("fbs_aegl", 0), ("softmax_ce", 1), ("fbs_aegl", 1)]


def figures(result: dict[str, Any], entry: str) -> dict[str, Any]:
    (found,) = [e for table in result["tables"] for e in table["entries"] if e["name"] == entry]
    return found["figures"]


def test_every_entry_is_trained_with_every_seed_in_a_folder_of_its_own(trainer: Any, asked: dict[str, Any]) -> None:
    result = tasks.compare(asked, QUIET)
    assert trainer.trained == ALL
    folders = [Path(run["run"]) for run in result["runs"]]
    assert folders == [Path(asked["project"], "compare", method, f"seed{seed}") for method, seed in ALL]
    assert [Path(config.project) / str(config.name) for config in trainer.asked] == folders
    assert result["failed"] == []
    assert figures(result, "softmax_ce")["mask/AP"] == {
        "published": None,
        "mean": pytest.approx(15.0),
        "spread": pytest.approx(7.0710678),
        "values": pytest.approx({"0": 10.0, "1": 20.0}),
    }
    json.dumps(result, allow_nan=False)


def test_all_entries_have_the_same_keys_but_their_own(trainer: Any, asked: dict[str, Any]) -> None:
    tasks.compare({**asked, "methods": "softmax_ce+lr=0.5,fbs_aegl", "seeds": 1, "batch": 4, "lr": 0.3}, QUIET)
    first, second = trainer.asked
    assert (first.lr, first.batch, first.iterations) == (0.5, 4, 6)
    assert (second.lr, second.batch, second.iterations) == (0.3, 4, 6)
    assert first.methods is None  # a run's record is that of a run, whatever comparison it was trained for


def test_seeds_are_counted_up_from_the_seed(trainer: Any, asked: dict[str, Any]) -> None:
    tasks.compare({**asked, "methods": "softmax_ce", "seed": 5}, QUIET)
    assert trainer.trained == [("softmax_ce", 5), ("softmax_ce", 6)]


def test_finished_runs_are_collected_and_new_ones_trained(trainer: Any, asked: dict[str, Any], messages: Any) -> None:
    first = tasks.compare({**asked, "seeds": 1}, QUIET)
    assert trainer.trained == ALL[:2]
    second = tasks.compare(asked, messages)
    assert trainer.trained == ALL
    assert "2 of 4 runs are finished already and are collected" in messages.lines
    assert figures(second, "fbs_aegl")["mask/AP"]["values"]["0"] == figures(first, "fbs_aegl")["mask/AP"]["mean"]
    assert tasks.compare(asked, QUIET) == second
    assert trainer.trained == ALL


def test_an_interrupted_run_is_resumed_and_the_finished_one_left_alone(trainer: Any, asked: dict[str, Any]) -> None:
    asked = {**asked, "seeds": 1, "weights": "start.pt"}
    trainer.raises["fbs_aegl"] = StoppedError("stopped by SIGTERM", signal.SIGTERM)
    with pytest.raises(
        StoppedError, match="stopped by SIGTERM, or the whole comparison by the same command"
    ) as stopped:
        tasks.compare(asked, QUIET)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    trainer.raises.clear()
    result = tasks.compare(asked, QUIET)
    assert trainer.trained == [*ALL[:2], ALL[1]]
    assert (trainer.asked[2].resume, trainer.asked[2].weights) == (True, None)
    assert not trainer.asked[1].resume
    assert result["failed"] == []
    assert "weights" not in result["differs"].get("fbs_aegl", {})


def test_a_run_without_a_checkpoint_is_trained_anew(trainer: Any, asked: dict[str, Any]) -> None:
    tasks.compare({**asked, "seeds": 1}, QUIET)
    run = Path(asked["project"]) / "compare" / "softmax_ce" / "seed0"
    (run / "train.json").unlink()
    tasks.compare({**asked, "seeds": 1}, QUIET)
    assert trainer.trained == [*ALL[:2], ALL[0]]
    assert trainer.asked[2].exist_ok and not trainer.asked[2].resume


@pytest.mark.parametrize("change", [{"lr": 0.5}, {"iterations": 7}, {"loss.mu": 0.1, "methods": "fbs_aegl"}])
def test_runs_of_another_configuration_are_refused_before_anything_is_trained(
    trainer: Any, asked: dict[str, Any], change: dict[str, Any]
) -> None:
    tasks.compare({**asked, "seeds": 1}, QUIET)
    before = len(trainer.asked)
    with pytest.raises(ConfigError) as error:
        tasks.compare({**asked, **change}, QUIET)
    key, value = next(iter(change.items()))
    lines = str(error.value).splitlines()
    run = Path(asked["project"]) / "compare" / "fbs_aegl" / "seed0"
    assert any(line.startswith(f"{run}: {key}=") and line.endswith(f", {value} asked for") for line in lines)
    assert "name=" in lines[-1]
    assert len(trainer.asked) == before


def test_where_and_on_what_machine_a_run_is_trained_may_differ(trainer: Any, asked: dict[str, Any]) -> None:
    tasks.compare(asked, QUIET)
    tasks.compare({**asked, "workers": 7}, QUIET)
    assert trainer.trained == ALL


def test_a_failed_run_loses_no_other(trainer: Any, asked: dict[str, Any], messages: Any) -> None:
    trainer.raises["softmax_ce"] = RunError("the loss is not finite")
    result = tasks.compare(asked, messages)
    assert trainer.trained == ALL
    assert [(run["entry"], run["seed"], run["error"]) for run in result["failed"]] == [
        ("softmax_ce", seed, "the loss is not finite") for seed in (0, 1)
    ]
    assert figures(result, "fbs_aegl")["mask/AP"]["mean"] is not None
    assert "- softmax_ce, seed 1: the loss is not finite" in Path(result["report"]).read_text()
    assert any(line.endswith("softmax_ce, seed 0: failed: the loss is not finite") for line in messages.lines)
    trainer.raises.clear()
    assert tasks.compare(asked, QUIET)["failed"] == []
    assert trainer.trained == [*ALL, ALL[0], ALL[2]]


def test_an_error_of_a_library_is_kept_with_its_traceback(trainer: Any, asked: dict[str, Any]) -> None:
    trainer.raises["softmax_ce"] = RuntimeError("no memory left\nfor this")
    result = tasks.compare({**asked, "seeds": 1}, QUIET)
    file = Path(asked["project"]) / "compare" / "softmax_ce" / "seed0" / "error.txt"
    assert [run["error"] for run in result["failed"]] == [f"RuntimeError: no memory left (see {file})"]
    assert "Traceback" in file.read_text()
    assert trainer.trained == ALL[:2]
    trainer.raises.clear()
    tasks.compare({**asked, "seeds": 1}, QUIET)
    assert not file.exists()


def test_a_record_that_cannot_be_read_fails_that_run_alone(trainer: Any, asked: dict[str, Any]) -> None:
    tasks.compare({**asked, "seeds": 1}, QUIET)
    (Path(asked["project"]) / "compare" / "softmax_ce" / "seed0" / "train.json").write_text("{")
    (failed,) = tasks.compare({**asked, "seeds": 1}, QUIET)["failed"]
    assert failed["entry"] == "softmax_ce" and "train.json: cannot be read" in failed["error"]


def test_partial_results_are_on_disk_while_the_comparison_runs(trainer: Any, asked: dict[str, Any]) -> None:
    trainer.raises["fbs_aegl"] = StoppedError("stopped", signal.SIGINT)
    with pytest.raises(StoppedError):
        tasks.compare(asked, QUIET)
    assert "| softmax_ce |    1 |" in (Path(asked["project"]) / "compare" / "compare.md").read_text()


def test_the_reports_hold_published_beside_own_figures(trainer: Any, tmp_path: Path) -> None:
    recipes = (
        "fbs_aegl/table1_fg_bg,fbs_aegl/table7_v1_r50_rfs,fbs_aegl/table1_bg+batch=8,fbs_aegl/table6_r50+loss.mu=0"
    )
    result = tasks.compare({"recipes": recipes, "project": tmp_path, "seeds": 2}, QUIET)
    text = Path(result["report"]).read_text()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert rows[0] == [
        "entry", "runs", "box AP", "published box AP", "mask AP", "published mask AP", "mask APr", "published mask APr",
        "mask APc", "published mask APc", "mask APf", "published mask APf", "box APr", "box APc", "box APf", "box AR",
        "published box AR",
    ]  # fmt: skip
    cells = {row[0]: row[1:] for row in rows[2:]}
    own = ["25.5 ± 7.1", "15.5 ± 7.1"]
    assert cells["fbs_aegl/table1_fg_bg"][:5] == ["2", own[0], "27.8", own[1], "27.6"]
    assert cells["fbs_aegl/table1_fg_bg"][9:11] == ["-", "32.5"]  # no class of that band: no own figure
    assert cells["fbs_aegl/table1_fg_bg"][-1] == "37.7"
    assert cells["fbs_aegl/table7_v1_r50_rfs"][1:5] == ["25.0 ± 7.1", "24.7", "15.0 ± 7.1", "23.7"]
    assert cells["fbs_aegl/table7_v1_r50_rfs"][-1] == "-"
    assert cells["fbs_aegl/table1_bg+batch=8"][2] == "26.8"  # a shorter or smaller run is still one of that row
    assert cells["fbs_aegl/table6_r50+loss.mu=0"][2] == "-"  # this is another method
    assert "- fbs_aegl/table1_fg_bg: Table 1, FGw yes, BGw yes" in text
    assert len({len(line) for line in text.splitlines() if line[:1] == "|"}) == 1  # aligned


def test_the_csv_has_a_row_per_entry_and_figure_in_percent(trainer: Any, tmp_path: Path) -> None:
    asked = {"recipes": "fbs_aegl/table7_v1_r50_rfs", "project": tmp_path, "seed": 3, "seeds": 2, "name": "x"}
    result = tasks.compare(asked, QUIET)
    assert result["csv"] == str(tmp_path / "x" / "compare.csv")
    with Path(result["csv"]).open(newline="") as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    assert rows["mask/APr"] == {
        "data": "lvis_v1", "entry": "fbs_aegl/table7_v1_r50_rfs", "figure": "mask/APr", "published": "13.5",
        "mean": "46", "spread": "7.07107", "runs": "2", "seed 3": "41", "seed 4": "51",
    }  # fmt: skip
    assert (rows["mask/APf"]["published"], rows["mask/APf"]["mean"], rows["mask/APf"]["runs"]) == ("29.3", "", "0")
    assert rows["box/APr"]["published"] == ""


def test_without_published_figures_the_report_says_so(trainer: Any, asked: dict[str, Any]) -> None:
    text = Path(tasks.compare({**asked, "seeds": 1}, QUIET)["report"]).read_text()
    assert "No figures are published" in text
    assert "published box" not in text and "±" not in re.sub(r"mean ±.*", "", text)


def test_the_report_says_in_what_the_entries_differ(trainer: Any, asked: dict[str, Any]) -> None:
    result = tasks.compare({**asked, "methods": "fbs_aegl,fbs_aegl+loss.mu=0.1", "seeds": 1}, QUIET)
    assert result["differs"] == {"fbs_aegl": {}, "fbs_aegl+loss.mu=0.1": {"loss.mu": 0.1}}
    one = tasks.compare({**asked, "methods": "fbs_aegl", "seeds": 1}, QUIET)
    assert one["differs"] == {}


def test_entries_of_different_data_stand_in_tables_of_their_own(trainer: Any, tmp_path: Path) -> None:
    recipes = "fbs_aegl/table7_v05_r50_rfs,fbs_aegl/table7_v1_r50_rfs,fbs_aegl/table7_v05_r50_eql"
    result = tasks.compare({"recipes": recipes, "project": tmp_path, "seeds": 1}, QUIET)
    assert [(table["data"], len(table["entries"])) for table in result["tables"]] == [("lvis_v05", 2), ("lvis_v1", 1)]


def test_runs_of_one_entry_on_different_ground_truth_are_refused(trainer: Any, asked: dict[str, Any]) -> None:
    trainer.ground_truth = {1: "changed"}
    with pytest.raises(ConfigError, match=r"softmax_ce: its runs .* were not evaluated on the same data"):
        tasks.compare(asked, QUIET)
    found = [str(path.parent) for path in Path(asked["project"]).rglob("train.json")]
    with pytest.raises(ConfigError, match="were not evaluated on the same data"):
        tasks.compare({"runs": found, "project": asked["project"], "name": "collected"}, QUIET)
    assert not (Path(asked["project"]) / "collected").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": "softmax_ce,nonsense"}, ["nonsense: method=nonsense: unknown method"]),
        ({"methods": "softmax_ce,fbs_aegl+loss.mu=-1"}, ["fbs_aegl+loss.mu=-1: loss.mu=-1"]),
        ({"data": None}, ["data: not given"]),
        ({"lrr": 1}, ["lrr: unknown key"]),
        ({"seeds": 0}, ["seeds=0"]),
        ({"resume": True}, ["resume=true", "by itself"]),
        ({"runs": "a"}, ["methods, runs", "one of the two"]),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_trained(
    trainer: Any, asked: dict[str, Any], change: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        tasks.compare({**asked, **change}, QUIET)
    assert [word for word in words if word not in str(error.value)] == []
    assert len(str(error.value).splitlines()) == 1
    assert trainer.asked == [] and list(Path(asked["project"]).iterdir()) == []


def test_a_file_can_hold_the_whole_request(trainer: Any, asked: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "request.yaml"
    file.write_text("methods: [softmax_ce]\nseeds: 1\nname: from_file\nlr: 0.03\n")
    keys = {key: value for key, value in asked.items() if key not in ("methods", "seeds")}
    result = tasks.compare({**keys, "cfg": str(file)}, QUIET)
    assert result["folder"] == str(tmp_path / "from_file")
    assert [(config.method, config.lr, config.seed) for config in trainer.asked] == [("softmax_ce", 0.03, 0)]
    assert tasks.compare({**keys, "cfg": str(file), "seeds": 2}, QUIET)["failed"] == []
    assert trainer.trained == [("softmax_ce", 0), ("softmax_ce", 1)]


@pytest.fixture
def finished(trainer: Any, asked: dict[str, Any]) -> list[str]:
    """Folders of finished runs: two methods with two seeds, and one of them with another setting."""
    tasks.compare(asked, QUIET)
    tasks.compare({**asked, "methods": "softmax_ce+sampler=rfs", "seeds": 1}, QUIET)
    trainer.asked.clear()
    return [str(path.parent) for path in sorted(Path(asked["project"]).rglob("train.json"))]


def test_finished_runs_are_collected_from_anywhere(
    trainer: Any, asked: dict[str, Any], finished: list[str], tmp_path: Path
) -> None:
    result = tasks.compare({"runs": finished, "project": tmp_path}, QUIET)
    assert trainer.asked == []
    assert result["folder"] == str(tmp_path / "compare2")  # that of the comparison is left as it is
    entries = {entry["name"]: entry["seeds"] for entry in result["tables"][0]["entries"]}
    assert entries == {"fbs_aegl": [0, 1], "softmax_ce+sampler=random": [0, 1], "softmax_ce+sampler=rfs": [0]}
    before = tasks.compare(asked, QUIET)
    assert figures(result, "fbs_aegl") == figures(before, "fbs_aegl")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.5}, ["lr=0.5", "was trained with 0.08"]),
        ({"method": "fbs_aegl"}, ["method=fbs_aegl", "was trained with softmax_ce"]),
        ({"lrr": 0.5}, ["lrr: unknown key"]),
        ({"methods": "a"}, ["methods, runs"]),
    ],
)
def test_keys_beside_runs_must_be_those_of_the_runs(
    finished: list[str], tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        tasks.compare({"runs": finished, "project": tmp_path / "new", **change}, QUIET)
    assert [word for word in words if word not in str(error.value)] == []
    assert not (tmp_path / "new").exists()
    assert tasks.compare({"runs": finished, "project": tmp_path / "new", "iterations": 6}, QUIET)["failed"] == []


def test_one_run_is_not_counted_twice(finished: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="same configuration and seed"):
        tasks.compare({"runs": [*finished, finished[0]], "project": tmp_path}, QUIET)


@pytest.mark.parametrize("missing", ["args.yaml", "train.json"])
def test_what_is_no_finished_run_is_refused(finished: list[str], tmp_path: Path, missing: str) -> None:
    (Path(finished[0]) / missing).unlink()
    with pytest.raises(AeglError, match=missing) as error:
        tasks.compare({"runs": finished, "project": tmp_path}, QUIET)
    assert error.value.exit_code == 2 and finished[0] in str(error.value)


def test_an_error_of_the_data_in_a_run_is_reported_too(trainer: Any, asked: dict[str, Any]) -> None:
    trainer.raises["softmax_ce"] = DataError("no such image")
    assert [run["error"] for run in tasks.compare({**asked, "seeds": 1}, QUIET)["failed"]] == ["no such image"]
