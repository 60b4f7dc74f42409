"""Mean and spread of figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegl.comparison.statistics import Figure, figure_names, figures_of


def test_mean_and_sample_standard_deviation() -> None:
    figure = Figure(None, {0: 24.0, 1: 26.0, 2: 28.0})
    assert (figure.mean, figure.spread) == (26.0, 2.0)  # the population's would be 1.63


@given(st.lists(st.floats(0, 100), min_size=2, max_size=8))
def test_they_are_those_of_numpy(values: list[float]) -> None:
    figure = Figure(None, dict(enumerate(values)))
    assert figure.mean == pytest.approx(np.mean(values), rel=1e-12, abs=1e-12)
    assert figure.spread == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("values", "mean"), [({}, None), ({4: 31.5}, 31.5)])
def test_no_spread_of_fewer_than_two(values: dict[int, float], mean: float | None) -> None:
    assert (Figure(None, values).mean, Figure(None, values).spread) == (mean, None)


def test_figures_are_in_percent_and_only_of_the_runs_that_have_them() -> None:
    metrics = {0: {"mask": {"AP": 0.25, "APr": None}}, 1: {"mask": {"AP": 0.27, "APr": 0.1}}, 2: {"mask": None}}
    found = figures_of(["mask/AP", "mask/APr", "box/AP"], metrics, {"mask/AP": 27.6})
    assert found["mask/AP"].values == pytest.approx({0: 25.0, 1: 27.0})
    assert (found["mask/AP"].published, found["mask/APr"].published) == (27.6, None)
    assert found["mask/APr"].values == pytest.approx({1: 10.0})
    assert found["box/AP"].values == {}


def test_bands_are_those_of_the_data_and_further_published_figures_come_last() -> None:
    names = figure_names(["1", "2"], [{"mask/AP": 26.0}, {"box/AR": 37.0, "mask/AP1": 18.6}])
    assert names == ["box/AP", "mask/AP", "mask/AP1", "mask/AP2", "box/AP1", "box/AP2", "box/AR"]
