"""Charts show the numbers that they are given, and are written as PNG and SVG."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from aegl.plots.charts import canvas, class_ap, confusions, counts, curves, gradients, repeats, scores, training

BAND = np.array([0, 0, 1, 1, 2])
NAMES = ("r", "c", "f")
AP = np.array([0.1, np.nan, 0.3, 0.2, 0.5])


def lines(figure: Figure, panel: int = 0) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[panel].get_lines()]  # type: ignore[arg-type]


def legend(figure: Figure, panel: int = 0) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].get_legend().get_texts()]  # type: ignore[union-attr]


def test_counts_fall_and_leave_out_what_does_not_occur() -> None:
    figure = counts.class_counts({"a": np.array([3, 0, 50, 7]), "b": np.array([1])})
    assert lines(figure) == [([1, 2, 3], [50, 7, 3]), ([1], [1])]
    assert legend(figure)[0] == "a: 4 classes, 60 instances, 50 to 3, 1 without"
    assert figure.axes[0].get_yscale() == "log"


def test_the_share_of_foreground_is_a_gap_where_there_is_no_gradient() -> None:
    given = gradients.NegativeGradient(np.array([1, 9, 5]), np.array([3.0, 1.0, 0.0]), np.array([1.0, 3.0, 0.0]))
    figure = gradients.foreground_share({"a": given})
    dots = np.asarray(figure.axes[0].collections[0].get_offsets())
    assert dots[0].tolist() == [1, 25] and dots[-1].tolist() == [3, 75]
    (_, share) = lines(figure)[0]
    assert share[0] == 25 and np.isnan(share[1]) and share[2] == 75
    (_, ratio) = lines(gradients.foreground_share({"a": given}, "fg_over_bg"))[0]
    assert ratio[0] == pytest.approx(1 / 3) and ratio[2] == 3


def test_the_curve_of_many_classes_is_the_mean_of_neighbours() -> None:
    rng = np.random.default_rng(0)
    foreground = rng.random(1203)
    foreground[[0, 5]] = 0  # without gradient at all: background below is 0 there too
    background = np.where(foreground > 0, 1 - foreground, 0)
    given = gradients.NegativeGradient(np.arange(1203, 0, -1), foreground, background)
    (_, curve) = lines(gradients.foreground_share({"a": given}))[0]
    assert curve[600] == pytest.approx(100 * foreground[576:625].mean())
    assert curve[0] == pytest.approx(100 * np.delete(foreground[:25], [0, 5]).mean())
    assert np.ptp(curve) < 0.5 * np.ptp(100 * foreground)


@pytest.mark.parametrize(
    ("order", "expected"),
    [("each", [[30, 20], [90, 60]]), ("baseline", [[30, 20], [60, 90]]), ("count", [[20, 30], [90, 60]])],
)
def test_ap_by_class_in_every_order(order: class_ap.Order, expected: list[list[float]]) -> None:
    other = np.array([0.4, 0.4, 0.6, 0.9, 0.5])
    figure = class_ap.ap_by_class(
        {"a": AP, "b": other}, class_band=BAND, band_names=NAMES, instances=np.array([1, 2, 3, 4, 5]), order=order
    )
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "frequent, 1 classes", "common, 2 classes", "rare, 1 classes",
    ]  # fmt: skip
    assert [np.round(y, 6).tolist() for _, y in lines(figure, 1)] == expected
    assert legend(figure, 1) == ["a: 25.0", "b: 75.0"]


def test_order_by_count_needs_counts() -> None:
    with pytest.raises(ValueError, match="instances"):
        class_ap.ap_by_class({"a": AP}, class_band=BAND, band_names=NAMES, order="count")


def test_ap_by_count_averages_classes_of_like_size() -> None:
    ((x, y),) = lines(class_ap.ap_by_count({"a": AP}, np.array([4, 4, 5, 7, 100])))
    assert y == pytest.approx([20, 50]) and x[1] == pytest.approx(100) and 4 < x[0] < 7


def test_precision_is_the_mean_of_each_band() -> None:
    precision = np.array([[1, 0.5], [np.nan, np.nan], [0.2, 0.2], [0.4, 0.0], [1, 1]])
    figure = curves.precision_recall(np.array([0.0, 1.0]), precision, class_band=BAND, band_names=NAMES, title="masks")
    assert legend(figure) == ["rare: 75.0", "common: 20.0", "frequent: 100.0", "all: 53.8"]
    assert lines(figure)[1][1] == pytest.approx([0.3, 0.1])


def test_calibration_is_the_share_of_true_ones() -> None:
    edges = np.linspace(0, 1, 51).tolist()
    true, false = [0] * 50, [0] * 50
    true[45:50], false[45:50] = [4] * 5, [16] * 5  # between 0.9 and 1, one in five is true
    true[0], false[0] = 1, 3  # too few to be drawn
    figure = scores.calibration(
        edges, {"r": {"true": true, "false": false}, "f": {"true": [0] * 50, "false": [0] * 50}}
    )
    (x, y) = lines(figure)[1]
    assert x == pytest.approx([0.95]) and y == pytest.approx([0.2])
    error = (100 * 0.75 + 4 * abs(0.01 - 0.25)) / 104
    assert legend(figure)[1] == f"rare: error {error:.3f}"


def test_histograms_have_a_panel_for_each_band() -> None:
    counted = {"r": {"true": [0, 1], "false": [5, 2]}, "f": {"true": [3, 3], "false": [1, 1]}}
    figure = scores.score_histograms([0.0, 0.5, 1.0], counted, title="my run")
    assert figure.get_suptitle() == "my run"
    assert legend(figure, 1) == ["false: 7", "true: 1"] and figure.axes[0].get_title(loc="left") == "frequent"


def test_confusions_are_few_enough_to_read() -> None:
    figure = confusions.top_confusions([(f"a{'x' * 60}", "b", 90 - k) for k in range(60)])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(labels) == 25 and all(len(label) < 40 for label in labels)


def test_training_curves_skip_empty_cells() -> None:
    columns = {
        "iteration": [20.0, 40.0, 40.0],
        "loss": [2.0, 1.0, None],
        "mask/AP": [None, None, 0.3],
        "cls": [1, 2, None],
    }
    assert lines(training.losses({"a": columns}))[0] == ([20, 40], [2, 1])
    assert lines(training.evaluations({"a": columns}, ["mask/AP"]))[0] == ([40], [30])
    assert legend(training.loss_terms({**columns, "lr": [0.1, 0.1, None]}, ["cls"])) == ["cls"]


def test_evaluations_have_a_scale_that_holds_every_panel() -> None:
    columns = {"iteration": [20.0, 40.0], "mask/APr": [0.01, 0.02], "mask/APf": [0.3, 0.4]}
    figure = training.evaluations({"a": columns}, ["mask/APr", "mask/APf"])
    assert all(panel.get_ylim()[0] == 0 and panel.get_ylim()[1] > 40 for panel in figure.axes)


def test_the_names_of_loss_terms_hide_no_curve() -> None:
    columns = {"iteration": [20.0, 40.0], "lr": [0.1, 0.1], **{f"term_{k}": [1.0, 0.1**k] for k in range(7)}}
    figure = training.loss_terms(columns, [name for name in columns if name.startswith("term")])
    figure.draw_without_rendering()
    panel = figure.axes[0]
    names = panel.get_legend().get_window_extent()  # type: ignore[union-attr]
    assert names.y0 >= panel.get_window_extent().y1 and names.y1 <= figure.bbox.y1


def test_numbers_of_logarithmic_axes_are_written_out() -> None:
    figure = counts.class_counts({"a": np.array([30_000, 500, 1])})
    figure.draw_without_rendering()
    shown = {text.get_text() for text in figure.axes[0].get_yticklabels()} - {""}
    assert {"1", "10", "100", "1,000", "10,000"} <= shown and not any("10^" in text for text in shown)


def test_there_is_no_class_two_and_a_half() -> None:
    ap = np.array([0.3, 0.2, 0.1])
    figure = class_ap.ap_by_class({"a": ap}, class_band=np.zeros(3, dtype=np.int64), band_names=["all"])
    assert all(tick == int(tick) for tick in figure.axes[0].get_xticks())


def test_the_axis_says_in_which_order_classes_stand() -> None:
    given: dict[str, Any] = {"class_band": BAND, "band_names": NAMES, "instances": np.arange(5)}
    for order, text in (("each", "each run"), ("baseline", "best of a"), ("count", "most frequent")):
        figure = class_ap.ap_by_class({"a": AP, "b": AP}, order=order, kind="mask", **given)  # type: ignore[arg-type]
        assert text in figure.axes[0].get_xlabel() and figure.axes[0].get_ylabel() == "mask AP, percent"


@pytest.mark.parametrize(("best", "top"), [(0.02, 0.1), (0.4, 0.44), (1.0, 1.0)])
def test_precision_of_a_poor_detector_can_be_seen(best: float, top: float) -> None:
    precision = np.full((1, 2), best)
    band = np.zeros(1, dtype=np.int64)
    figure = curves.precision_recall(
        np.array([0.0, 1.0]), precision, class_band=band, band_names=["all"], title="masks"
    )
    assert figure.axes[0].get_ylim() == pytest.approx((0, top))


def test_repeats_are_of_classes_that_occur() -> None:
    images, factors = np.array([1, 1, 4, 100, 0]), np.array([10.0, 10.0, 5.0, 1.0, 0.0])
    figure = repeats.repeat_factors(images, factors, np.array([0, 0, 0, 2, 2]), NAMES, threshold=0.01)
    assert figure.axes[0].get_title(loc="left") == "threshold 0.01: 3 of 4 classes are repeated"
    assert legend(figure) == ["rare: 3 classes, 10.00 to 5.00 times", "frequent: 1 classes, not repeated"]
    rare, frequent = figure.axes[0].collections
    assert np.asarray(rare.get_offsets()).tolist() == [[1, 10], [4, 5]]
    assert np.asarray(frequent.get_offsets()).tolist() == [[100, 1]]
    two, one = rare.get_sizes()  # type: ignore[attr-defined]
    assert two == 2 * one


def test_files_are_the_same_every_time_and_their_text_is_text(tmp_path: Path) -> None:
    figures = [counts.class_counts({"müsli": np.array([3, 1])}) for _ in range(2)]
    first, second = (canvas.write(figure, tmp_path / name) for figure, name in zip(figures, "ab", strict=True))
    assert [path.name for path in first] == ["a.png", "a.svg"]
    assert first[1].read_bytes() == second[1].read_bytes()
    assert "müsli: 2 classes" in first[1].read_text("utf-8")
    assert Image.open(first[0]).width > 900
    assert re.match("<svg[^>]*>", canvas.svg(figures[0]))


def test_1203_classes_are_drawn() -> None:
    rng = np.random.default_rng(0)
    band = rng.integers(0, 3, 1203)
    figure = class_ap.ap_by_class({"a": rng.random(1203), "b": rng.random(1203)}, class_band=band, band_names=NAMES)
    assert sum(len(lines(figure, panel)[0][0]) for panel in range(3)) == 1203
