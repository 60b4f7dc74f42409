import csv
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aegl.engine.callbacks import Callback, CsvLogger
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.results_csv import ResultsCsv
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


def test_a_run_and_its_resumption_write_one_clean_file(toy: ModuleType, tmp_path: Path) -> None:
    def logger(keep_until: int = 0) -> CsvLogger:
        results = ResultsCsv(tmp_path / "results.csv", keep_until=keep_until)
        return CsvLogger(results, labels={"protocol": "coco", "split": "val"}, figures=["AP", "APr"])

    summary: dict[str, Any] = {"box": {"AP": 0.5, "APr": None, "AR": 0.1}, "mask": None}
    options: dict[str, Any] = {"validate": lambda model: summary, "val_every": 6}
    with pytest.raises(RuntimeError, match="crash"):
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
