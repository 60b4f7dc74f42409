import csv
import resource
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aegl.engine.callbacks import Callback, CsvLogger
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.results_csv import ResultsCsv, last_iteration
from aegl.errors import RunError


class Crash(Callback):
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_step_end(self, iteration: int) -> None:
        if iteration == self.iteration:
            raise RuntimeError("crash")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_resumed_file_has_no_row_twice(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    first = ResultsCsv(path)
    for iteration in (10, 20, 30):
        first.append({"iteration": iteration, "loss": iteration / 7}, columns=["iteration", "loss", "AP"])
    with path.open("a") as file:
        file.write("40,1.")  # the kill cut this row short
    second = ResultsCsv(path, keep_until=20)
    second.append({"iteration": 30, "AP": None}, columns=["ignored"])
    assert path.read_text() == "iteration,loss,AP\n10,1.42857,\n20,2.85714,\n30,,\n"


def test_unknown_column_and_alien_file(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    results = ResultsCsv(path)
    results.append({"iteration": 1}, columns=["iteration"])
    with pytest.raises(RunError, match="no column for loss"):
        results.append({"iteration": 2, "loss": 1.0}, columns=[])
    path.write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match="no column iteration"):
        ResultsCsv(path)


def test_a_file_that_another_version_began_keeps_its_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "results.csv"
    path.write_text("iteration,loss\n1,0.5\n")
    results = ResultsCsv(path, keep_until=1)
    for iteration in (2, 3):
        results.append({"iteration": iteration, "memory_mb": 9.0, "loss": 0.25}, columns=["ignored"])
    assert path.read_text() == "iteration,loss\n1,0.5\n2,0.25\n3,0.25\n"
    (warning,) = caplog.records
    assert warning.getMessage() == f"{path}: was begun without columns for memory_mb, which are left out"


def test_a_run_and_its_resumption_write_one_clean_file(toy: ModuleType, tmp_path: Path) -> None:
    def logger(keep_until: int = 0) -> CsvLogger:
        results = ResultsCsv(tmp_path / "results.csv", keep_until=keep_until)
        return CsvLogger(results, labels={"protocol": "coco", "split": "val"}, figures=["AP", "APr"])

    summary: dict[str, Any] = {"box": {"AP": 0.5, "APr": None, "AR": 0.1}, "mask": None}
    options: dict[str, Any] = {"validate": lambda model: summary, "val_every": 6}
    with pytest.raises(RunError, match="Crash: on_step_end raised RuntimeError: crash"):
        toy.build(tmp_path, callbacks=[logger(), Crash(7)], **options).run()
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    resumed = toy.build(tmp_path, callbacks=[logger(checkpoint.iteration)], **options)
    resumed.resume(checkpoint)
    resumed.run()
    table = rows(tmp_path / "results.csv")
    assert [row["iteration"] for row in table] == ["3", "4", "6", "6", "8", "9", "12", "12"]
    evaluations = [row for row in table if row["protocol"]]
    assert [(row["box/AP"], row["box/APr"], row["mask/AP"]) for row in evaluations] == [("0.5", "", "")] * 2
    assert all(row["loss_cls"] for row in table if not row["protocol"])


def test_rows_that_a_full_disk_refuses_are_written_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also the half row that got through is taken back."""
    path = tmp_path / "results.csv"
    results = ResultsCsv(path)
    results.append({"iteration": 1}, columns=["iteration", "loss"])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 2, limits[1]))
    try:
        results.append({"iteration": 2, "loss": 0.5}, columns=[])
        results.append({"iteration": 3, "loss": 0.25}, columns=[])
        with pytest.raises(RunError, match="cannot be written"):
            results.flush()
        refused = path.read_text()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused == "iteration,loss\n1,\n"
    assert "results.csv: cannot be written (File too large). Its rows are kept" in caplog.records[0].getMessage()
    results.append({"iteration": 4}, columns=[])
    assert path.read_text() == "iteration,loss\n1,\n2,0.5\n3,0.25\n4,\n"


def test_a_row_of_an_evaluation_that_was_not_saved_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("iteration,loss,protocol,AP\n4,1.0,,\n4,,lvis,0.1\n6,0.5,,\n6,,lvis,0.2\n")
    ResultsCsv(path, keep_until=6, evaluated_until=4)
    assert path.read_text() == "iteration,loss,protocol,AP\n4,1.0,,\n4,,lvis,0.1\n6,0.5,,\n"
    assert last_iteration(path) == 6
    assert last_iteration(tmp_path / "none.csv") is None
