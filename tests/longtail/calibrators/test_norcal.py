"""NorCal: the golden vector, the same factor as a bias, and which losses it refuses."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aegl.errors import ConfigError
from aegl.longtail.calibrators.norcal import NorCal
from aegl.longtail.losses.bags import Bags
from aegl.longtail.losses.fbs_aegl import FbsAegl
from aegl.longtail.losses.ldam import Ldam
from aegl.longtail.losses.seesaw import Seesaw
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.simcal import SimCal
from aegl.longtail.losses.softmax_ce import SoftmaxCE

WAYS = list(product(["exps", "probs", "logits"], ["gamma", "cb"], [True, False]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("applied_to", "factor", "renormalize"), WAYS)
def test_golden_vector(
    golden: Any, make_stats: Any, applied_to: Any, factor: Any, renormalize: bool, dtype: torch.dtype
) -> None:
    vector = golden("norcal")
    stats = make_stats(vector["instance_counts"], vector["freq_group"], vector["image_counts"])
    calibrator = NorCal(
        stats,
        gamma=float(vector["gamma"]),
        beta=float(vector["cb_beta"]),
        factor=factor,
        applied_to=applied_to,
        renormalize=renormalize,
    )
    scores = calibrator(torch.as_tensor(vector["logits"], dtype=dtype), SoftmaxCE(stats).scores)
    expected = vector[f"{applied_to}_{factor}_renorm{int(renormalize)}"][:, :-1]
    # Bare exponentials reach several hundred.
    np.testing.assert_allclose(
        scores, expected, rtol=1e-6 if applied_to == "exps" and not renormalize else 0, atol=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), gamma=st.floats(0, 2), spread=st.sampled_from([0.1, 3.0, 40.0]))
def test_it_is_the_formula_of_the_paper(stats: Any, seed: int, gamma: float, spread: float) -> None:
    logits = spread * np.random.default_rng(seed).standard_normal((5, 7))
    images = np.array([2, 1, 20, 60, 150, 3000])  # the absent class counts as one image
    exps = np.exp(logits - logits.max(1, keepdims=True))
    exps[:, :6] *= images**-gamma
    scores = NorCal(stats, gamma=gamma)(torch.as_tensor(logits), SoftmaxCE(stats).scores)
    np.testing.assert_allclose(scores, (exps / exps.sum(1, keepdims=True))[:, :6], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("applied_to", ["exps", "probs", "logits"])
@pytest.mark.parametrize("loss_type", [SoftmaxCE, Seesaw])
def test_a_gamma_of_zero_changes_nothing(stats: Any, loss_type: Any, applied_to: Any) -> None:
    loss = loss_type(stats)
    logits = torch.randn(5, loss.num_logits, generator=torch.Generator().manual_seed(0))
    calibrator = NorCal(stats, gamma=0.0, applied_to=applied_to)
    torch.testing.assert_close(calibrator(logits, loss.scores), loss.scores(logits))


def test_objectness_stays_as_it_is(stats: Any) -> None:
    """Seesaw's background is a softmax of its own, which the factors do not enter."""
    loss = Seesaw(stats)
    logits = torch.randn(5, loss.num_logits, generator=torch.Generator().manual_seed(0))
    plain, calibrated = loss.scores(logits), NorCal(stats)(logits, loss.scores)
    torch.testing.assert_close(calibrated.sum(1), plain.sum(1))
    assert (calibrated[:, 0] > plain[:, 0]).all() and (calibrated[:, 5] < plain[:, 5]).all()


def test_probabilities_of_any_loss_can_be_multiplied(stats: Any) -> None:
    loss = SigmoidBCE(stats)
    calibrator = NorCal(stats, gamma=0.5, applied_to="probs", renormalize=False)
    calibrator.check(loss)
    logits = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    images = torch.tensor([2, 1, 20, 60, 150, 3000])
    torch.testing.assert_close(calibrator(logits, loss.scores), logits.sigmoid() / images.sqrt())


@pytest.mark.parametrize("applied_to", ["exps", "logits", "probs"])
@pytest.mark.parametrize("loss_type", [SoftmaxCE, Seesaw])
def test_softmax_losses_can_be_calibrated(stats: Any, loss_type: Any, applied_to: Any) -> None:
    NorCal(stats, applied_to=applied_to).check(loss_type(stats))


@pytest.mark.parametrize("applied_to", ["exps", "logits", "probs"])
@pytest.mark.parametrize("loss_type", [SigmoidBCE, FbsAegl, Bags, SimCal])
def test_scores_that_are_no_distribution_are_refused(stats: Any, loss_type: Any, applied_to: Any) -> None:
    with pytest.raises(ConfigError, match=r"applied_to=probs calibrate\.renormalize=false here"):
        NorCal(stats, applied_to=applied_to).check(loss_type(stats))


def test_what_a_refusal_asks_for_is_accepted(stats: Any) -> None:
    with pytest.raises(ConfigError, match=r"norcal needs calibrate\.applied_to=probs here"):
        NorCal(stats).check(Ldam(stats))
    NorCal(stats, applied_to="probs").check(Ldam(stats))


class Calibrated(nn.Module):
    """Logits to calibrated scores."""

    def __init__(self, calibrator: NorCal, loss: Any) -> None:
        super().__init__()
        self.calibrator, self.loss = calibrator, loss

    def forward(self, logits: Tensor) -> Tensor:
        return self.calibrator(logits, self.loss.scores)


@pytest.mark.parametrize(("applied_to", "renormalize"), [("exps", True), ("probs", True), ("logits", True)])
@pytest.mark.parametrize("loss_type", [SoftmaxCE, Seesaw])
def test_the_exported_graph_scores_alike(stats: Any, loss_type: Any, applied_to: Any, renormalize: bool) -> None:
    loss = loss_type(stats)
    module = Calibrated(NorCal(stats, applied_to=applied_to, renormalize=renormalize), loss).eval()
    axes = ({0: torch.export.Dim("rows", min=1)},)
    example = torch.randn(2, loss.num_logits)
    program = torch.onnx.export(module, (example,), dynamic_shapes=axes, opset_version=18, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = 5 * torch.randn(40, loss.num_logits)
    (found,) = session.run(None, {session.get_inputs()[0].name: logits.numpy()})
    np.testing.assert_allclose(found, module(logits), rtol=1e-4, atol=1e-6)


def test_nothing_of_it_is_saved(stats: Any) -> None:
    assert NorCal(stats).state_dict() == {}
