"""ACSL: golden vector, the two kinds of rows, and bands other than those of LVIS."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aegl.longtail.losses.acsl import Acsl
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.statistics import ClassStatistics

BACKGROUND = 6
RARE = torch.tensor([True, True, False, False, False, False])
COMMON = torch.tensor([False, False, True, True, False, False])


def test_golden(golden, stats_of, assert_golden, element_weights):
    data = golden("acsl")
    band, background = data["freq_group"], data["labels"] == 30
    # Which rows the authors drew shows in the weights: they get the smallest draws here.
    drawn = [background & (data["weights"][:, :30][:, band == kind].sum(axis=1) > 0) for kind in (0, 1)]
    assert [rows.sum() for rows in drawn] == [1, 19]
    uniform = np.where(np.stack(drawn, axis=1), 0.25, 0.75)

    def make():
        rare, common, _ = data["bg_keep_fraction"]
        threshold = float(data["threshold"])
        return Acsl(stats_of(data), threshold=threshold, rare_keep=float(rare), common_keep=float(common))

    assert_golden(make, data["logits"], data["labels"], data["loss"], data["grad"], 1e-6, uniform=uniform)
    loss, logits = make(), torch.as_tensor(data["logits"])
    np.testing.assert_array_equal(
        element_weights(loss, logits, data["labels"], uniform), data["weights"][:, :30].astype(float)
    )
    background_weights = loss.background_weights(logits, torch.as_tensor(data["labels"]))
    np.testing.assert_array_equal(background_weights, data["weights"][:, 30])
    np.testing.assert_allclose(loss.scores(logits), data["scores"], rtol=0, atol=1e-6)


def test_everything_open_is_sigmoid_bce_with_a_background_column(stats, batch, evaluate):
    torch.manual_seed(0)
    logits = torch.cat([batch.logits, torch.randn(40, 1).double()], dim=1)
    value, grad = evaluate(Acsl(stats, threshold=0.0, rare_keep=1.0, common_keep=1.0), logits, batch.labels)
    expected, expected_grad = evaluate(SigmoidBCE(stats, objectness=True), logits, batch.labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_foreground_rows_suppress_only_what_reaches_the_threshold(stats, evaluate):
    logits = torch.tensor([[-9.0, 0.9, 0.8, -9, 0.9, 0.8, 0.9], [-9.0, 0.9, 0.8, -9, 0.9, 0.8, 0.8]])
    _, grad = evaluate(Acsl(stats), logits, torch.tensor([0, 0]))  # sigmoid(0.8) = 0.69, sigmoid(0.9) = 0.71
    acts = [[True, True, False, False, True, False, True], [True, True, False, False, True, False, False]]
    assert (grad != 0).tolist() == acts


def test_background_rows_are_kept_whole_by_band_whatever_their_scores(stats, evaluate):
    labels = torch.tensor([0] * 10 + [BACKGROUND] * 250)
    torch.manual_seed(0)
    _, grad = evaluate(Acsl(stats), torch.full((260, 7), -2.0), labels)
    acts = grad[10:] != 0
    for columns, rows in ((RARE, 2), (COMMON, 25)):  # int(0.01 x 250), int(0.1 x 250)
        suppressed = acts[:, :6][:, columns]
        assert (suppressed.all(dim=1) == suppressed.any(dim=1)).all()
        assert suppressed.all(dim=1).sum() == rows
    assert acts[:, 4:].all()


def test_few_background_rows_suppress_no_rare_class(stats, evaluate):
    _, grad = evaluate(Acsl(stats), torch.zeros(99, 7), torch.full((99,), BACKGROUND))
    assert not grad[:, :6][:, RARE].any()
    assert (grad[:, :6][:, COMMON] != 0).sum() == 2 * 9


@pytest.mark.parametrize(
    ("low_bands", "rare", "common"),
    [(0, [], []), (1, [0], []), (3, [0], [1, 2])],
)
def test_bands_of_another_data_set(low_bands, rare, common):
    counts = np.array([1, 10, 100, 1000])
    loss = Acsl(ClassStatistics(counts, counts, 1111, np.arange(4), tuple("abcd"), low_bands))
    assert loss.rare.nonzero().flatten().tolist() == rare
    assert loss.common.nonzero().flatten().tolist() == common


def test_scores_do_not_know_background(stats):
    scores = Acsl(stats).scores(torch.tensor([[2.0, 0, 0, 0, 0, 0, 50.0]]))
    assert scores.shape == (1, 6)
    assert scores[0, 0].item() == pytest.approx(0.8808, abs=1e-4)
