"""Callbacks end a run well or badly, are found in users' files, and the page about them tells the truth."""

from __future__ import annotations

import logging
import re
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegl.engine.callbacks import Callback, CsvLogger, StopTraining, TrainResult
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.distributed import join_world
from aegl.engine.early_stopping import EarlyStopping
from aegl.engine.fitness import figure, fitness
from aegl.engine.results_csv import ResultsCsv, evaluations
from aegl.engine.user_callbacks import make_callbacks
from aegl.errors import ConfigError, RunError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "callbacks.md"


class Ask(Callback):
    """Asks the run to end from one hook, at one iteration."""

    def __init__(self, hook: str, iteration: int) -> None:
        self.told: list[tuple[str, int]] = []
        self.result: TrainResult | None = None
        self._asked = (hook, iteration)

    def _note(self, hook: str, iteration: int) -> None:
        self.told.append((hook, iteration))
        if (hook, iteration) == self._asked:
            raise StopTraining("enough")

    def on_train_start(self, iteration: int, total: int) -> None:
        self._note("on_train_start", iteration)

    def on_step_end(self, iteration: int) -> None:
        self._note("on_step_end", iteration)

    def on_val_end(self, iteration: int, summary: Any) -> None:
        self._note("on_val_end", iteration)

    def on_train_end(self, result: TrainResult) -> None:
        self.result = result


def scores(*values: float) -> Any:
    """An evaluation that gives one value after the other."""
    left = list(values)
    return lambda model: {"box": {"AP": left.pop(0), "APr": None}, "mask": None}


@pytest.mark.parametrize(
    ("hook", "iteration", "end", "evaluated"),
    [
        ("on_step_end", 5, 5, [4, 5]),
        ("on_step_end", 4, 4, [4]),
        ("on_val_end", 4, 4, [4]),
        ("on_train_start", 0, 1, [1]),
    ],
)
def test_a_run_that_a_callback_ends_is_evaluated_once_saved_and_complete(
    toy: ModuleType, tmp_path: Path, hook: str, iteration: int, end: int, evaluated: list[int]
) -> None:
    ask = Ask(hook, iteration)
    result = toy.build(tmp_path, callbacks=[ask], validate=scores(0.5, 0.4, 0.3), val_every=4).run()
    assert (result.iterations, result.stopped) == (end, "enough")
    assert ask.result == result
    assert [step for name, step in ask.told if name == "on_val_end"] == evaluated
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint.iteration == end and checkpoint.training is not None
    assert checkpoint.training.validated == end
    assert (tmp_path / "best.pt").is_file()


def test_a_run_that_nobody_ends_says_so(toy: ModuleType, tmp_path: Path) -> None:
    result = toy.build(tmp_path, validate=scores(0.5)).run()
    assert (result.iterations, result.stopped) == (12, None)


def test_the_other_callbacks_are_told_of_the_event_that_one_stopped_at(toy: ModuleType, tmp_path: Path) -> None:
    first, second = Ask("on_val_end", 4), Ask("", 0)
    toy.build(tmp_path, callbacks=[first, second], validate=scores(0.5), val_every=4).run()
    assert second.told[-1] == ("on_val_end", 4)


def stop_with_others(folder: Path, rank: int, port: int, toy: ModuleType, hook: str) -> None:
    import os

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    with join_world("cpu") as world:
        result = toy.build(
            folder, world=world, callbacks=[Ask(hook, 4)], validate=lambda model: {"box": {"AP": 0.5}}, val_every=4
        ).run()
    (folder / f"rank{rank}").write_text(f"{result.iterations} {result.stopped}")


@pytest.mark.parametrize(("hook", "end"), [("on_val_end", 4), ("on_step_end", 4)])
def test_all_processes_end_at_the_same_step(toy: ModuleType, tmp_path: Path, hook: str, end: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [toy.fork(stop_with_others, tmp_path, rank, port, toy, hook) for rank in range(2)]
    assert [toy.exit_code(process) for process in processes] == [0, 0]
    ends = [(tmp_path / f"rank{rank}").read_text() for rank in range(2)]
    assert ends == [f"{end} enough"] * 2


def test_a_failing_callback_is_named_and_leaves_the_checkpoint(toy: ModuleType, tmp_path: Path) -> None:
    class Broken(Callback):
        def on_step_end(self, iteration: int) -> None:
            if iteration == 5:
                raise ValueError("no such thing")

    with pytest.raises(RunError, match=r"callback Broken: on_step_end raised ValueError: no such thing \(.*line \d+"):
        toy.build(tmp_path, callbacks=[Broken()]).run()
    assert load_checkpoint(tmp_path / "last.pt").iteration == 4


# Early stopping


def stops_at(values: list[float], patience: int) -> int | None:
    stopping = EarlyStopping(patience)
    stopping.on_train_start(0, len(values) + 1)
    for number, value in enumerate(values, start=1):
        try:
            stopping.on_val_end(number, {"box": {"AP": value}})
        except StopTraining:
            return number
    return None


@given(st.lists(st.floats(0, 1), max_size=12), st.integers(1, 4))
def test_it_stops_at_the_first_evaluation_with_so_many_in_a_row_that_are_no_better(
    values: list[float], patience: int
) -> None:
    shown = [float(f"{value:.6g}") for value in values]
    expected = next(
        (
            number
            for number in range(patience + 1, len(shown) + 1)
            if max(shown[number - patience : number]) <= max(shown[: number - patience])
        ),
        None,
    )
    assert stops_at(values, patience) == expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 4), st.data())
def test_a_resumed_run_stops_where_an_unbroken_one_does(values: list[float], patience: int, data: Any) -> None:
    whole = stops_at(values, patience)
    cut = data.draw(st.integers(0, (whole or len(values) + 1) - 1))
    earlier = [float(f"{value:.6g}") for value in values[:cut]]
    resumed = EarlyStopping(patience, earlier=earlier)
    resumed.on_train_start(cut, len(values) + 1)
    stopped = None
    for number, value in enumerate(values[cut:], start=cut + 1):
        try:
            resumed.on_val_end(number, {"box": {"AP": value}})
        except StopTraining:
            stopped = number
            break
    assert stopped == whole


def test_patience_survives_a_kill_through_the_rows_of_the_evaluations(toy: ModuleType, tmp_path: Path) -> None:
    def callbacks(kept: int = 0) -> list[Callback]:
        results = ResultsCsv(tmp_path / "results.csv", keep_until=kept)
        labels = {"protocol": "coco"}
        earlier = [fitness(summary) for _, summary in evaluations(results.path)]
        return [CsvLogger(results, labels=labels, figures=["AP"]), EarlyStopping(2, earlier=earlier)]

    class Crash(Callback):
        def on_step_end(self, iteration: int) -> None:
            if iteration == 5:
                raise RunError("crash")

    options: dict[str, Any] = {"val_every": 2, "checkpoint_every": 2}
    with pytest.raises(RunError, match="crash"):
        toy.build(tmp_path, callbacks=[*callbacks(), Crash()], validate=scores(0.5, 0.4), **options).run()
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    trainer = toy.build(tmp_path, callbacks=callbacks(checkpoint.iteration), validate=scores(0.3, 0.9), **options)
    trainer.resume(checkpoint)
    result = trainer.run()
    assert (result.iterations, result.best) == (6, 0.5)
    assert result.stopped == "patience=2: 2 evaluations in a row without more than AP 50.0"
    assert [step for step, _ in evaluations(tmp_path / "results.csv")] == [2, 4, 6]


def test_a_figure_is_of_masks_where_there_are_any() -> None:
    summary = {"box": {"AP": 0.5, "APr": 0.1}, "mask": {"AP": 0.4, "APr": None}}
    names = ("fitness", "AP", "APr", "box/AP", "mask/APr", "APx")
    assert [figure(summary, name) for name in names] == [0.4, 0.4, 0.1, 0.5, None, None]
    assert fitness({"box": {"AP": None}, "mask": None}) == -1.0


# Files of users


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x.txt", "names no .py file"),
        ("RareEnough", "names no .py file"),
        ("missing.py", "no such file"),
        ("two.py", "name one callback as .*two.py:Class; .* defines A, B"),
        ("two.py:C", "no callback of that name; .* defines A, B"),
        ("broken.py", "cannot be imported .SyntaxError"),
        ("wants.py", "cannot be made without arguments .TypeError"),
    ],
)
def test_a_file_that_gives_no_callback_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    head = "from aegl.engine.callbacks import Callback\n"
    Path("two.py").write_text(f"{head}class A(Callback): ...\nclass B(Callback): ...\nclass C: ...\n")
    Path("broken.py").write_text("class\n")
    Path("wants.py").write_text(f"{head}class W(Callback):\n    def __init__(self, goal): ...\n")
    with pytest.raises(ConfigError, match=message) as error:
        make_callbacks([text])
    assert str(error.value).startswith(f"callbacks={text.partition(':')[0]}")


def test_the_example_of_the_page_runs(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (code,) = re.findall(r"```python\n# my_callbacks.py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("my_callbacks.py").write_text(code)
    callbacks = [*make_callbacks(["my_callbacks.py"]), *make_callbacks(["my_callbacks.py:RareEnough"])]
    summaries = iter([{"mask": {"AP": 0.5, "APr": None}, "box": None}, {"mask": {"AP": 0.5, "APr": 0.25}, "box": None}])
    callbacks[1].goal = callbacks[0].goal = 0.2  # type: ignore[attr-defined]
    with caplog.at_level(logging.INFO, "aegl"):
        trainer = toy.build(tmp_path, callbacks=callbacks[:1], validate=lambda model: next(summaries), val_every=4)
        result = trainer.run()
    assert (result.iterations, result.stopped) == (8, "APr has reached 0.2")
    assert Path("rare.txt").read_text() == "4 0.0000\n8 0.2500\n"
    assert "RareEnough ends the run: APr has reached 0.2" in caplog.text


def test_the_page_lists_every_hook() -> None:
    hooks = [name for name in vars(Callback) if name.startswith("on_")]
    assert re.findall(r"^\| `(on_\w+)\(", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == hooks
