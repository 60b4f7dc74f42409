"""Losses, gradients, weights and scores against the golden vectors (`AEGL_ORACLES`, or the copy in tests/fixtures)."""

from itertools import product

import numpy as np
import pytest
import torch

from aegl.longtail.classifiers import CosineLinear
from aegl.longtail.losses.fbs_aegl import FbsAegl
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.softmax_ce import SoftmaxCE

# The vectors of the baselines divide by N + 1.19e-7 and hold a loss rounded to float32.
BASELINE_RTOL = {torch.float64: 1e-6, torch.float32: 1e-5}
LOSS_RTOL = {torch.float64: 1e-9, torch.float32: 1e-5}
GRAD_RTOL = {torch.float64: 1e-10, torch.float32: 1e-5}
GRAD_ATOL = {torch.float64: 1e-10, torch.float32: 1e-6}
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
TOGGLES = list(product(["sigmoid", "gumbel"], [0, 1], [0, 1], [0, 1]))


@pytest.fixture(scope="session")
def vectors(oracles):
    def load(name):
        with np.load(oracles / f"{name}.npz") as archive:
            return {key: archive[key] for key in archive.files}

    return load


@pytest.fixture(scope="session")
def fbs(vectors):
    return vectors("fbs_aegl")


@pytest.fixture
def build(fbs, make_stats):
    def make(**options) -> FbsAegl:
        stats = make_stats(fbs["instance_counts"], fbs["freq_group"])
        return FbsAegl(stats, gamma=float(fbs["gamma"]), mu=float(fbs["mu"]), **options)

    return make


def close(actual, expected, rtol, atol=0.0):
    np.testing.assert_allclose(np.asarray(actual, dtype=np.float64), expected, rtol=rtol, atol=atol)


@DTYPES
@pytest.mark.parametrize(
    ("name", "prefix", "make"),
    [
        ("softmax_ce", "", SoftmaxCE),
        ("sigmoid_bce", "", SigmoidBCE),
        ("sigmoid_bce", "obj_", lambda stats: SigmoidBCE(stats, objectness=True)),
    ],
    ids=["softmax_ce", "sigmoid_bce", "sigmoid_bce-objectness"],
)
def test_baselines(vectors, make_stats, value_and_grad, name, prefix, make, dtype):
    data = vectors(name)
    loss = make(make_stats(data["instance_counts"], data["freq_group"]))
    logits = torch.as_tensor(data[prefix + "logits"], dtype=dtype)
    value, grad = value_and_grad(loss, logits, data["labels"])
    assert loss.num_logits == logits.shape[1]
    close(value, data[prefix + "loss"], BASELINE_RTOL[dtype])
    close(grad, data[prefix + "grad"], BASELINE_RTOL[dtype], GRAD_ATOL[torch.float32])
    close(loss.scores(logits), data[prefix + "scores"], 0.0, 1e-6)


def test_weight_factor_and_sigma(fbs, build, value_and_grad):
    loss = build()
    value_and_grad(loss, fbs["logits"], fbs["labels"])
    close(loss.weight_factor, fbs["weight_factor"], 1e-12)
    close(loss.low_frequency, fbs["low_frequency"], 0.0)
    close(loss.diagnostics["sigma"], fbs["sigma"], 1e-12)


@DTYPES
@pytest.mark.parametrize(("activation", "fg", "bg", "wf"), TOGGLES)
def test_fbs_aegl_toggles(fbs, build, value_and_grad, element_weights, activation, fg, bg, wf, dtype):
    loss = build(activation=activation, foreground_weight=bool(fg), background_weight=bool(bg), weight_factor=bool(wf))
    logits = torch.as_tensor(fbs["logits"], dtype=dtype)
    value, grad = value_and_grad(loss, logits, fbs["labels"], fbs["uniforms"])
    key = f"{activation}_fg{fg}_bg{bg}_wf{wf}"
    close(value, fbs[f"{key}_loss"], LOSS_RTOL[dtype])
    if f"{key}_grad" in fbs:
        close(grad, fbs[f"{key}_grad"], GRAD_RTOL[dtype], GRAD_ATOL[dtype])
        weights = element_weights(loss, logits, fbs["labels"], fbs["uniforms"])
        close(weights, fbs[f"{key}_weights"], LOSS_RTOL[dtype])
    close(loss.scores(logits), fbs[f"scores_{activation}"], 0.0, 1e-6)


@pytest.mark.parametrize(
    ("name", "uniforms", "options"),
    [
        ("literal", "uniforms", {"bernoulli": "literal"}),
        ("per_class", "alt_per_class_uniforms", {"bernoulli_draw": "class"}),
        ("all_groups", "uniforms", {"bernoulli_groups": "all"}),
    ],
)
def test_fbs_aegl_other_readings(fbs, build, value_and_grad, element_weights, name, uniforms, options):
    loss = build(**options)
    value, _ = value_and_grad(loss, fbs["logits"], fbs["labels"], fbs[uniforms])
    close(value, fbs[f"alt_{name}_loss"], 1e-9)
    # With every background gate open the non-zero weights are exactly the kept elements.
    loss.mu = 0.0
    background = fbs["labels"] == 30
    kept = element_weights(loss, fbs["logits"], fbs["labels"], fbs[uniforms])[background] > 0
    expected = np.broadcast_to(fbs[f"alt_{name}_keep"], fbs["logits"].shape)[background]
    close(kept, expected, 0.0)


@pytest.mark.parametrize("choice", ["keep", "drop"])
def test_fbs_aegl_without_foreground(fbs, build, value_and_grad, choice):
    labels = np.full_like(fbs["labels"], 30)
    value, _ = value_and_grad(build(empty_foreground=choice), fbs["logits"], labels, fbs["uniforms"])
    close(value, fbs[f"allbg_{choice}_loss"], 1e-9)


@DTYPES
def test_fbs_aegl_keeps_terms_exactly_at_mu(fbs, make_stats, element_weights, dtype):
    loss = FbsAegl(make_stats(fbs["edge_counts"], [2, 2, 2]), mu=float(fbs["edge_mu"]))
    weights = element_weights(loss, torch.as_tensor(fbs["edge_logits"], dtype=dtype), fbs["edge_labels"])
    close(weights, fbs["edge_weights"], 1e-6)
    close(loss.weight_factor, fbs["edge_weight_factor"], 1e-12)


@DTYPES
def test_cosine_classifier(vectors, dtype):
    data = vectors("normed_layers")
    layer = CosineLinear(16, 32, temperature=float(data["temperature"])).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(data["weight"]))
        layer.bias.copy_(torch.as_tensor(data["bias"]))
        logits = layer(torch.as_tensor(data["x"], dtype=dtype))
    close(logits, data["y"], LOSS_RTOL[dtype], GRAD_ATOL[dtype])
