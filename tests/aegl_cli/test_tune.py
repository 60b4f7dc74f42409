"""`aegl tune` on real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")


def test_a_search_prints_what_it_writes_and_its_best_can_be_trained(
    aegl: Any, tiny: tuple[str, ...], tmp_path: Path
) -> None:
    words = ("tune", *tiny, "device=cpu", f"project={tmp_path}", "trials=2", "val_every=3", "space.lr=0.001..0.01:log")
    first = aegl(*words)
    assert first.exit_code == 0, first.stderr
    assert first.stdout.startswith((tmp_path / "tune" / "tune.md").read_text())
    second = aegl(*words, "--json")
    assert "train 6/6 steps" not in second.stderr
    content = json.loads(second.stdout)
    assert [trial["state"] for trial in content["trials"]] == ["complete"] * 2
    best = content["best_trial"]
    record = json.loads((Path(best["run"]) / "train.json").read_text())
    assert best["value"] == pytest.approx(100 * record["fitness"], rel=1e-4)
    again = aegl("train", f"cfg={content['best']}", f"project={tmp_path}", "name=again", "report=false", "--json")
    assert json.loads(again.stdout)["fitness"] == pytest.approx(record["fitness"])


def test_a_wrong_range_is_refused(aegl: Any, refused: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    refused(aegl("tune", *tiny, f"project={tmp_path / 'x'}", "space.lr=0.1..0.01"), "space.lr=0.1..0.01", "must rise")
    refused(aegl("tune", *tiny, f"project={tmp_path / 'x'}"), "space: not given")
    assert not (tmp_path / "x").exists()
