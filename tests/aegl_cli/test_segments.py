"""`aegl data segments`, and training that pastes what it has cut out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def segments(aegl: Callable, tiny_data: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Segments of the tiny data set. Read only."""
    output = tmp_path_factory.mktemp("cut") / "segments"
    result = aegl("data", "segments", *tiny_data, f"output={output}", "per_class=2", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["classes"] == 6 and report["classes_without_segments"] == 0
    assert report["segments"] == len(list(output.glob("*/*.png"))) <= 12
    return output


def test_training_pastes_them(aegl: Callable, tiny: tuple[str, ...], segments: Path, tmp_path: Path) -> None:
    words = ("train", *tiny, "method=freeseg", f"paste.folder={segments}", f"project={tmp_path}")
    result = aegl(*words, "name=a")
    assert result.exit_code == 0, result.stderr
    assert f"folder: {segments}" in (tmp_path / "a" / "args.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "paste.folder=segments: no such folder; `aegl data segments data=... output=segments`"),
        (("paste.folder={broken}",), "paste.folder={broken}: 1/x.png cannot be read"),
        (("paste.folder={broken}", "paste.min_count=4"), "paste.min_count=4, paste.max_count=3: the smallest must not"),
        (("paste.folder={broken}", "paste.max_size=1.5"), "paste.max_size=1.5: must be a number > 0 and <= 1"),
    ],
)
def test_what_cannot_be_pasted_is_refused_before_a_run_begins(
    aegl: Callable,
    tiny: tuple[str, ...],
    refused: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    named: str,
) -> None:
    broken = tmp_path / "broken"
    (broken / "1").mkdir(parents=True)
    (broken / "1" / "x.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    given = (word.format(broken=broken) for word in words)
    result = aegl("train", *tiny, "method=freeseg", "project=runs", *given)
    refused(result, named.format(broken=broken))
    assert not (tmp_path / "runs").exists()


def test_a_folder_in_use_and_a_missing_one_are_refused(
    aegl: Callable, tiny_data: tuple[str, ...], refused: Callable, segments: Path
) -> None:
    refused(aegl("data", "segments", *tiny_data, f"output={segments}"), f"output={segments}: is there already")
    refused(aegl("data", "segments", *tiny_data), "output: not given")
