import os
from pathlib import Path

import pytest

from aegl.engine.runs import create_run, newest_run, newest_weights, run_of
from aegl.errors import CheckpointError, ConfigError


def test_unnamed_runs_are_numbered(tmp_path: Path) -> None:
    names = [create_run(tmp_path / "runs", None, verb="train", exist_ok=False).name for _ in range(3)]
    assert names == ["train", "train2", "train3"]
    assert (tmp_path / "runs" / "train3").is_dir()


def test_named_run_is_not_overwritten(tmp_path: Path) -> None:
    create_run(tmp_path, "a", verb="train", exist_ok=False)
    with pytest.raises(ConfigError, match=r"name=a: .* exists already"):
        create_run(tmp_path, "a", verb="train", exist_ok=False)
    assert create_run(tmp_path, "a", verb="train", exist_ok=True) == tmp_path / "a"


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match=r"project=.*/runs: cannot be made a folder"):
        create_run(tmp_path / "runs", None, verb="train", exist_ok=False)
    (tmp_path / "b").write_text("")
    with pytest.raises(ConfigError, match="is no folder"):
        create_run(tmp_path, "b", verb="train", exist_ok=True)


def test_newest(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no run there has a weights/best\.pt"):
        newest_weights(tmp_path)
    for age, (run, file) in enumerate([("x", "last.pt"), ("y", "best.pt"), ("x", "best.pt"), ("y", "last.pt")]):
        path = create_run(tmp_path, run, verb="train", exist_ok=True) / "weights" / file
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
        os.utime(path, (1000 + age, 1000 + age))
    assert newest_weights(tmp_path) == tmp_path / "x" / "weights" / "best.pt"
    assert newest_run(tmp_path) == tmp_path / "y"


def test_run_of_weights(tmp_path: Path) -> None:
    run = create_run(tmp_path, "x", verb="train", exist_ok=True)
    with pytest.raises(CheckpointError, match="does not lie in a run"):
        run_of(run / "weights" / "last.pt")
    (run / "args.yaml").write_text("")
    assert run_of(run / "weights" / "last.pt") == run.resolve()
