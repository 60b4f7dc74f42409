import os
from pathlib import Path

import pytest

from aegl.engine.runs import create_run, forget, newest_run, newest_weights, run_of
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


def test_a_run_whose_last_checkpoint_is_missing_is_still_the_newest(tmp_path: Path) -> None:
    for age, file in enumerate(["x/weights/last.pt", "y/weights/previous.pt"]):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("")
        os.utime(tmp_path / file, (1000 + age, 1000 + age))
    assert newest_run(tmp_path) == tmp_path / "y"


def test_a_new_run_in_an_old_folder_cannot_be_resumed_from_the_old_one(tmp_path: Path) -> None:
    forget(tmp_path)  # nothing there is fine
    (tmp_path / "weights").mkdir()
    for file in ("train.json", "weights/last.pt", "weights/previous.pt", "weights/best.pt"):
        (tmp_path / file).write_text("")
    forget(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["best.pt"]
