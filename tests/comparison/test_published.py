"""Which published figures belong to a configuration, and that none are shown for another one."""

from __future__ import annotations

from typing import Any

import pytest

from aegl.comparison.published import Published, published_for
from aegl.config import complete_parts, load_config

RECIPE = {"recipe": "fbs_aegl/table5_r50_baseline"}
METHOD = {"method": "fbs_aegl", "data": "lvis_v1", "model": "r50"}


def published(**keys: Any) -> Published:
    return published_for(load_config(keys))


def test_a_recipe_brings_its_own_figures_and_their_place() -> None:
    found = published(**RECIPE)
    assert found.figures == {
        "box/AP": 24.7, "mask/AP": 23.7, "mask/APr": 13.3, "mask/APc": 23.0, "mask/APf": 29.0,
    }  # fmt: skip
    assert found.source == "Table 5, Mask R-CNN# w/ CE, R50-FPN"


def test_lost_cells_are_no_figures() -> None:
    assert published(recipe="fbs_aegl/table6_r101_baseline").figures == {}
    assert published(recipe="fbs_aegl/table7_v05_r101_droploss").figures == {"mask/APc": 29.7}


def test_bands_of_boxes_and_recall_have_names_of_their_own() -> None:
    figures = published(recipe="fbs_aegl/table8_coco_lt_fbs_aegl").figures
    assert (figures["mask/AP1"], figures["box/AP1"], figures["box/AP"]) == (18.6, 16.6, 27.5)
    assert published(recipe="fbs_aegl/table1_fg_bg").figures["box/AR"] == 37.7


@pytest.mark.parametrize(
    "change",
    [
        {"model": "mini"}, {"data": "lvis_v05"}, {"sampler": "random"}, {"box.classifier": "cosine"},
        {"mask.class_agnostic": True}, {"backbone.frozen_stages": 0},
    ],
)  # fmt: skip
def test_a_changed_recipe_has_no_published_figures(change: dict[str, Any]) -> None:
    before, after = published(**RECIPE), published(**RECIPE, **change)
    assert before.figures and after.source != before.source


def test_a_shorter_run_is_compared_with_the_published_one() -> None:
    assert published(**RECIPE, iterations=100, batch=4, seed=3) == published(**RECIPE)


@pytest.mark.parametrize(("sampler", "mask"), [("rfs", 27.6), ("random", 27.1)])
def test_a_methods_row_is_that_of_data_backbone_and_sampler(sampler: str, mask: float) -> None:
    assert published(**METHOD, sampler=sampler).figures["mask/AP"] == mask


@pytest.mark.parametrize(
    "change", [{"model": "r18"}, {"data": "shapes_lt"}, {"loss.mu": 0.1}, {"loss": "softmax_ce"}, {"data": "coco_lt"}]
)
def test_a_method_without_such_a_row_has_none(change: dict[str, Any]) -> None:
    assert published(**METHOD).figures
    assert published(**{**METHOD, **change}) == Published()


def test_options_written_out_at_their_defaults_change_nothing() -> None:
    config = load_config(METHOD)
    assert published_for(complete_parts(config)) == published_for(config) != Published()


def test_another_method_in_a_recipe_has_the_figures_of_its_own_file() -> None:
    found = published(**RECIPE, method="fbs_aegl")
    assert (found.source, found.figures["mask/AP"]) == ("Table 7", 27.6)
