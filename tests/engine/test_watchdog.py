"""A process that hangs is ended, and says where it hung."""

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aegl.config import Config
from aegl.engine.assembly import watchdog_of
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.distributed import World
from aegl.engine.watchdog import EXIT_CODE, Watchdog


def hang(toy: ModuleType, folder: Path) -> None:
    def stuck(consumed: int) -> Iterator[Any]:
        yield from itertools.islice(toy.batches(consumed, images=4, world=World()), 6)
        time.sleep(60)

    toy.build(folder, open_loader=stuck, watchdog=Watchdog(0.4, folder / "stuck.txt"), checkpoint_every=2).run()


def test_a_hang_is_reported_and_ends_the_process(toy: ModuleType, tmp_path: Path) -> None:
    assert toy.exit_code(toy.fork(hang, toy, tmp_path)) == EXIT_CODE == 75
    report = (tmp_path / "stuck.txt").read_text()
    assert "in: waiting for the data of iteration 4." in report
    assert "resume=true" in report
    assert "in stuck" in report  # the function that hangs
    assert load_checkpoint(tmp_path / "last.pt").iteration == 2


def test_an_evaluation_may_take_longer_and_progress_is_none_of_its_business(tmp_path: Path) -> None:
    ended: list[int] = []
    with Watchdog(0.2, tmp_path / "stuck.txt", end=ended.append) as watchdog:
        with watchdog.evaluation():
            time.sleep(0.6)
        for step in range(6):
            watchdog.progress(f"iteration {step}")
            time.sleep(0.1)
        assert not ended
        time.sleep(0.6)
    assert ended == [EXIT_CODE]


@pytest.mark.parametrize(("minutes", "size", "report"), [(30.0, 1, "stuck.txt"), (0.5, 8, "stuck.3.txt")])
def test_the_key(tmp_path: Path, minutes: float, size: int, report: str) -> None:
    watchdog = watchdog_of(Config(watchdog_minutes=minutes), tmp_path, World(rank=3 if size > 1 else 0, size=size))
    assert (watchdog._seconds, watchdog._report) == (60 * minutes, tmp_path / report)
    assert watchdog_of(Config(watchdog_minutes=0), tmp_path, World())._seconds == math.inf


def test_a_suspended_process_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an hour asleep the clock is an hour later, but the process was not awake to see it."""
    ended: list[int] = []
    watchdog = Watchdog(8.0, tmp_path / "stuck.txt", end=ended.append)
    clock = iter([0.0, 2.0, 3602.0, 3604.0])
    monkeypatch.setattr("aegl.engine.watchdog.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(watchdog._stop, "wait", lambda tick: watchdog._silent >= 8.0)
    watchdog._watch()
    assert not ended
