"""The paper's rows as recipes: complete, resolvable, and in agreement where the paper repeats a number."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from aegl.config import complete_parts, load_config, shipped

RECIPES = shipped.available("recipe")
ROWS = {1: 4, 2: 10, 3: 2, 4: 2, 5: 6, 6: 6, 7: 33, 8: 5}
"""Rows of each table of the FBS-AEGL paper."""
LVIS = ("box_ap", "mask_ap", "ap_r", "ap_c", "ap_f")


def published(name: str) -> dict[str, Any]:
    return dict(shipped.read("recipe", f"fbs_aegl/{name}")["published"])


def cells(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("table", "row")}


def test_every_row_of_every_table_has_a_recipe_named_after_its_table() -> None:
    paper = [name for name in RECIPES if name.startswith("fbs_aegl/")]
    tables = Counter(shipped.read("recipe", name)["published"]["table"] for name in paper)
    assert tables == ROWS
    for name in paper:
        assert name.startswith(f"fbs_aegl/table{shipped.read('recipe', name)['published']['table']}_")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_to_what_it_names(name: str) -> None:
    content = shipped.read("recipe", name)
    config = complete_parts(load_config({"recipe": name}))
    for key in ("data", "model", "method", "schedule", "sampler"):
        assert getattr(config, key) == content.get(key, getattr(config, key))
    assert {"data", "model", "method", "schedule"} <= content.keys()
    assert (config.batch, config.optimizer, config.max_det) == (16, "sgd", 100 if config.data == "coco_lt" else 300)


@pytest.mark.parametrize("name", RECIPES)
def test_published_cells_are_percent_or_null_under_known_names(name: str) -> None:
    row = shipped.read("recipe", name)["published"]
    assert isinstance(row["row"], str) and row["row"]
    bands = load_config({"data": shipped.read("recipe", name)["data"]}).bands.names
    known = {"box_ap", "mask_ap", *(f"ap_{band}" for band in bands)}
    assert known <= cells(row).keys() <= {*known, "box_ar", *(f"box_ap_{band}" for band in bands)}
    assert all(value is None or (isinstance(value, float) and 0 <= value <= 100) for value in cells(row).values())


@pytest.mark.parametrize("name", RECIPES)
def test_a_row_with_lost_cells_says_so(name: str) -> None:
    content = shipped.read("recipe", name)
    if None in cells(content["published"]).values():
        assert any(word in content["note"] for word in ("lost", "not given"))


@pytest.mark.parametrize(
    "same",
    [
        ["table1_fg_bg", "table2_mu0.7", "table3_rfs", "table4_with_wf", "table5_r50_ce", "table6_r50",
         "table7_v1_r50_fbs_aegl"],
        ["table1_baseline", "table6_r50_baseline"],
        ["table5_r101_ce", "table6_r101", "table7_v1_r101_fbs_aegl"],
    ],
)  # fmt: skip
def test_rows_that_the_paper_repeats_are_one_configuration_with_one_set_of_numbers(same: list[str]) -> None:
    rows = [{key: published(name)[key] for key in LVIS} for name in same]
    assert all(row == rows[0] for row in rows)
    configs = [complete_parts(load_config({"recipe": f"fbs_aegl/{name}"})) for name in same]
    assert all(
        config.model_copy(update={"recipe": None}) == configs[0].model_copy(update={"recipe": None})
        for config in configs
    )


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("table1_fg", {"foreground_weight": True, "background_weight": False}),
        ("table1_bg", {"foreground_weight": False, "background_weight": True}),
        ("table2_mu0.01", {"mu": 0.01, "gamma": 0.7}),
        ("table2_gamma0.9", {"mu": 0.7, "gamma": 0.9}),
        ("table4_without_wf", {"weight_factor": False}),
        ("table5_r101_gol", {"name": "fbs_aegl", "activation": "gumbel"}),
        ("table7_v05_r50_eql", {"name": "eql", "low_frequency": "image_share", "low_frequency_share": 0.00177}),
        ("table7_v1_r50_droploss", {"name": "droploss", "low_frequency_share": 0.0011}),
        ("table7_v1_r101_gol", {"name": "gol", "low_frequency": "image_share", "low_frequency_share": 0.0011}),
        ("table8_coco_lt_simcal", {"name": "simcal", "threshold": 400}),
    ],
)
def test_a_recipe_sets_what_its_row_is_about(name: str, keys: dict[str, Any]) -> None:
    loss = complete_parts(load_config({"recipe": f"fbs_aegl/{name}"})).loss.model_dump()
    assert {key: loss[key] for key in keys} == keys


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("table3_random", "random"),
        ("table3_rfs", "rfs"),
        ("table7_v1_r50_rfs", "rfs"),
        ("table6_r50_baseline", "random"),
    ],
)
def test_the_mark_for_rfs_is_a_sampler(name: str, sampler: str) -> None:
    assert load_config({"recipe": f"fbs_aegl/{name}"}).sampler == sampler


def test_swin_is_trained_as_the_paper_states_for_every_run() -> None:
    config = load_config({"recipe": "fbs_aegl/table6_swin"})
    assert (config.model, config.schedule, config.optimizer) == ("swin_t", "2x", "sgd")
    assert "does not say which Swin" in shipped.read("recipe", "fbs_aegl/table6_swin")["note"]
